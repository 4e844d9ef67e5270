"""What the files of data and evaluators hold now, for scores that depend on it."""

from collections.abc import Iterator
from pathlib import Path

from mmengine.config import Config

from mmpeft.files import hash_of
from mmpeft.mm.checks import evaluators, leaves

# Where an empty place is the folder of the data set itself.
IN_THE_ROOT = ('img', 'img_path', 'sub_data_root')
PHOTOGRAPHS = ('.jpg', '.jpeg')


def data_state(cfg: Config) -> list[tuple]:
    """The files that the validation of a config reads, in its data sets and its evaluators.

    Labels, label maps and lists of images are told by their content; images, which are many and large, by name, size
    and time of change.
    """
    found = []
    for _, dataset in leaves('', cfg.val_dataloader.dataset):
        for key, place in _places(dataset):
            found += _files(Path(dataset.get('data_root') or '', place), by_content=not key.startswith('img'))
    for metric in evaluators(cfg, 'val'):
        for key, place in metric.items():
            if isinstance(place, str) and place and not key.startswith('out'):
                found += _files(Path(place), by_content=True)
    return found


def _places(dataset: dict) -> Iterator[tuple[str, str]]:
    prefixes = dataset.get('data_prefix') or {}
    named = prefixes.items() if isinstance(prefixes, dict) else [('', prefixes)]
    for key, place in [('ann_file', dataset.get('ann_file')), *named]:
        if isinstance(place, str) and (place or key in IN_THE_ROOT):
            yield key, place


def _files(place: Path, by_content: bool) -> list[tuple]:
    """The file itself, or all in a folder; nothing where there is neither, as on another machine."""
    paths = [place] if place.is_file() else sorted(path for path in place.rglob('*') if path.is_file())
    return [(str(path), _state(path, by_content)) for path in paths]


def _state(path: Path, by_content: bool) -> str:
    if by_content and path.suffix.lower() not in PHOTOGRAPHS:
        return hash_of(path)
    status = path.stat()
    return f'{status.st_size} bytes of {status.st_mtime_ns}'
