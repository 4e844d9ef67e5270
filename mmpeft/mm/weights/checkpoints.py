"""Read checkpoints as data: tensors and plain values, never a pickle that runs code.

mmengine's own reader falls back to a full pickle when the careful one refuses a file.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from urllib.parse import urlparse

import torch
from mmengine.config import Config
from mmengine.dist import get_rank
from mmengine.logging import HistoryBuffer, print_log
from mmengine.runner import CheckpointLoader
from torch import Tensor

from mmpeft.mm.checks import UserError
from mmpeft.mm.together import in_all
from mmpeft.reading import UnreadableError, check_start, read_as_data, weights_only

RESUME_KEYS = ('meta', 'message_hub', 'optimizer')
STATISTICS = ('min', 'max', 'current', 'mean')


def _statistic(owner: Any, name: str) -> Any:
    """Stands in for the ``getattr`` by which a pickled HistoryBuffer names its statistics."""
    if owner is not HistoryBuffer or name not in STATISTICS:
        raise UnpicklingError(f'Unsupported: GLOBAL getattr of {name!r}')
    return getattr(owner, name)


# What an mmengine checkpoint holds besides tensors and plain values.
LOGS = (HistoryBuffer, (_statistic, 'builtins.getattr'))


@contextmanager
def checkpoints_as_data(cfg: Config | None = None) -> Iterator[None]:
    """While it lasts, mmengine and the libraries on it read every checkpoint as data only.

    Args:
        cfg: The config in use, if there is one; errors name its keys.
    """

    def load_from_local(filename: str, map_location: Any = None) -> dict:
        return read_checkpoint(filename, map_location)

    def load_from_http(filename: str, map_location: Any = None, **_: Any) -> dict:
        key = None if cfg is None else _key_of(cfg.model, filename, 'model')
        return read_checkpoint(download(filename, key), map_location)

    schemes = dict(CheckpointLoader._schemes)
    CheckpointLoader.register_scheme('', load_from_local, force=True)
    CheckpointLoader.register_scheme(('http://', 'https://'), load_from_http, force=True)
    try:
        with weights_only():  # whatever else calls torch.load, mmengine's other schemes included, is held to the same
            yield
    finally:
        CheckpointLoader._schemes.clear()
        CheckpointLoader._schemes.update(schemes)


def read_checkpoint(path: str | Path, map_location: Any = 'cpu') -> dict:
    """The contents of a checkpoint file.

    Raises:
        UserError: The file is missing or damaged, has no weights, or asks for more than plain values.
    """
    path = Path(path).expanduser()
    try:
        checkpoint = read_as_data(path, map_location, also=LOGS)
    except UnreadableError as error:
        raise UserError(str(error)) from error
    if not _holds_weights(checkpoint):
        raise UserError(f'{path} is no checkpoint: it holds {_describe(checkpoint)} and no weights.')
    return checkpoint


def state_in(checkpoint: Mapping, place: str) -> dict[str, Tensor]:
    """The weights in what was read from ``place``: its ``state_dict``, its ``model``, or itself.

    Raises:
        UserError: It holds no tensors by names there.
    """
    state = checkpoint.get('state_dict', checkpoint.get('model', checkpoint))
    found = state.items() if isinstance(state, Mapping) else ()
    tensors = {name: value for name, value in found if isinstance(name, str) and torch.is_tensor(value)}
    if not tensors:
        raise UserError(
            f'{place} is no checkpoint of a model: it holds {_describe(checkpoint)} and no tensors by name.'
        )
    return tensors


def check_file(path: str | Path) -> None:
    """Refuse what cannot be a checkpoint by a look at its first bytes.

    Raises:
        UserError: The file is missing, or neither PyTorch nor safetensors writes such files.
    """
    try:
        check_start(Path(path).expanduser())
    except UnreadableError as error:
        raise UserError(str(error)) from error


def check_resumable(path: str | Path) -> dict:
    """The contents of a checkpoint from which a run can go on; a file that holds weights only is refused.

    Raises:
        UserError: The file cannot be read, or lacks what a run needs to go on.
    """
    if Path(path).suffix == '.safetensors':
        raise UserError(
            f'{path} holds weights only: training cannot go on from it. To start from them, use --cfg-options '
            f'load_from={path}.'
        )
    checkpoint = read_checkpoint(path)
    missing = [key for key in RESUME_KEYS if key not in checkpoint]
    if missing:
        raise UserError(
            f'{path} holds no {", ".join(missing)}: training cannot go on from it. '
            f'To start from its weights, use --cfg-options load_from={path}.'
        )
    return checkpoint


def download(url: str, key: str | None = None, name: str | None = None) -> Path:
    """The local copy of a file: torch's cache, into which the first process fetches it if it is not there.

    Args:
        url: Where the file is.
        key: The key of the config that names it, for the message.
        name: Its name in the cache; by default that of the URL.

    Raises:
        UserError: The file cannot be fetched, in whichever process; it says where to put it by hand.
    """
    path = Path(torch.hub.get_dir(), 'checkpoints', name or Path(urlparse(url).path).name)
    once(path, lambda: _fetch(url, path, key))
    return path


def once(path: Path, fetch: Callable[[], None]) -> None:
    """Let the first process ``fetch`` the file at ``path``, and then each whose machine does not share its disk.

    Raises:
        UserError: One of them could not; it is told to all.
    """
    in_all(lambda: None if path.exists() or get_rank() else fetch())
    in_all(lambda: None if path.exists() else fetch())


def _fetch(url: str, path: Path, key: str | None) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        print_log(f'Downloading {url} to {path}', 'current')
        torch.hub.download_url_to_file(url, str(path), progress=os.isatty(2))
    except (OSError, HTTPException) as error:
        option = f', or name a local file with --cfg-options {key}=FILE' if key else ''
        raise UserError(f'Cannot download {url} ({error}). Put the file at {path}{option}.') from error


def _holds_weights(checkpoint: Any) -> bool:
    if not isinstance(checkpoint, Mapping):
        return False
    inner = [value for value in checkpoint.values() if isinstance(value, Mapping)]
    return any(torch.is_tensor(value) for part in (checkpoint, *inner) for value in part.values())


def _describe(checkpoint: Any) -> str:
    if isinstance(checkpoint, Mapping):
        return f'a dict of {", ".join(map(str, list(checkpoint)[:5])) or "nothing"}'
    return f'a {type(checkpoint).__name__}'


def _key_of(node: Any, value: Any, path: str = '') -> str | None:
    """The dotted key under which a config holds ``value``, as ``--cfg-options`` takes it."""
    if node == value and path:
        return path
    items = node.items() if isinstance(node, dict) else enumerate(node if isinstance(node, list | tuple) else ())
    found = (_key_of(child, value, f'{path}.{name}' if path else str(name)) for name, child in items)
    return next((key for key in found if key), None)
