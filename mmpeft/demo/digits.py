"""The digits data set on disk: COCO json and JPEG images, made at first use, checked at every other.

::

    data/digits/
      annotations/train.json, val.json    boxes, masks (run lengths), areas; ten classes, '0' to '9'
      train/000000.jpg ...                300 images of 224 x 224
      val/000000.jpg ...                  100 images, of other digits on other photographs
      manifest.json                       the settings, the counts and a SHA-256 of every other file
"""

import json
import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from mmpeft.demo.scenes import CLASSES, SIZE, Instance, Scene, make_scenes
from mmpeft.files import hash_of

NAME = 'mmpeft digits'
VERSION = 1  # of what is drawn; another number asks for another folder
COUNTS = {'train': 300, 'val': 100}


class DigitsError(RuntimeError):
    """The folder meant for the digits holds something else."""


def prepare_digits(root: str | Path = 'data/digits', counts: dict[str, int] | None = None, seed: int = 0) -> dict:
    """Make the data set in ``root``, or check what is there and mend it.

    Files are written elsewhere and moved into place, so that an interrupted run leaves nothing half made and two
    processes may do this at once: what they write is the same.

    Args:
        root: The folder of the data set. Anything in it that is not part of the set is left alone.
        counts: Images per split; by default those of ``COUNTS``.
        seed: Other seeds give other scenes.

    Returns:
        The manifest, and under ``made`` how many files were written (0: all was there and whole).

    Raises:
        DigitsError: If ``root`` holds other files, or the digits of other settings.
    """
    root = Path(root)
    settings = {'name': NAME, 'version': VERSION, 'seed': seed, 'images': dict(counts or COUNTS)}
    manifest = _read_manifest(root, settings)
    if manifest and not damaged_files(root, manifest):
        return manifest | {'made': 0}
    root.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f'.{root.name}-', dir=root.parent))
    try:
        made = _make(scratch / root.name, settings)
        _move_into_place(scratch / root.name, root, made)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return made | {'made': len(made['files']) + 1}


def damaged_files(root: Path, manifest: dict) -> list[str]:
    """The files of the manifest that are missing or not what was written."""
    return [name for name, digest in manifest['files'].items() if _digest(root / name) != digest]


def write_coco(scenes: Iterable[Scene], root: Path, split: str) -> dict[str, int]:
    """Write scenes as JPEG images and one COCO json.

    Returns:
        How many images and instances were written.
    """
    (root / split).mkdir(parents=True)
    (root / 'annotations').mkdir(exist_ok=True)
    images, annotations = [], []
    for number, scene in enumerate(scenes):
        name = f'{number:06d}.jpg'
        Image.fromarray(scene.image).save(root / split / name, quality=95)
        images.append({'id': number, 'file_name': name, 'width': SIZE, 'height': SIZE})
        for instance in scene.instances:
            annotations.append(_annotation(instance, image=number, number=len(annotations) + 1))
    categories = [{'id': label, 'name': name, 'supercategory': 'digit'} for label, name in enumerate(CLASSES, start=1)]
    content = {
        'info': {'description': NAME, 'version': str(VERSION)},
        'images': images,
        'annotations': annotations,
        'categories': categories,
    }
    (root / 'annotations' / f'{split}.json').write_text(json.dumps(content), encoding='utf-8')
    return {'images': len(images), 'instances': len(annotations)}


def _annotation(instance: Instance, image: int, number: int) -> dict:
    return {
        'id': number,
        'image_id': image,
        'category_id': instance.label + 1,
        'bbox': list(instance.box),
        'area': int(instance.mask.sum()),
        'segmentation': {'size': list(instance.mask.shape), 'counts': _run_lengths(instance.mask)},
        'iscrowd': 0,
        'sample': instance.sample,
    }


def _run_lengths(mask: np.ndarray) -> list[int]:
    """COCO's uncompressed run lengths: down the columns, zeros first."""
    flat = np.concatenate([[0], mask.ravel(order='F').astype(np.int8), [-1]])
    starts = np.flatnonzero(np.diff(flat))
    return np.diff(starts, prepend=0).tolist()


def _make(folder: Path, settings: dict) -> dict:
    counts = {
        split: write_coco(make_scenes(split, count, settings['seed']), folder, split)
        for split, count in settings['images'].items()
    }
    files = {path.relative_to(folder).as_posix(): _digest(path) for path in sorted(folder.rglob('*')) if path.is_file()}
    manifest = {'settings': settings, 'counts': counts, 'files': files}
    (folder / 'manifest.json').write_text(json.dumps(manifest, indent=1), encoding='utf-8')
    return manifest


def _move_into_place(folder: Path, root: Path, manifest: dict) -> None:
    try:
        os.rename(folder, root)  # the whole folder at once, where there is none or an empty one
    except OSError:
        if not root.is_dir():
            raise
        for name in [*manifest['files'], 'manifest.json']:  # the manifest last: until then it names what is wrong
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            os.replace(folder / name, root / name)


def _read_manifest(root: Path, settings: dict) -> dict | None:
    """The manifest of a folder that holds these digits, whole or not; None where there is nothing yet."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return None
    way_out = 'Name another folder (data_root), or move this one away to have the digits made here.'
    if not (root / 'manifest.json').is_file():
        raise DigitsError(f'{root} exists and is not the digits data set: it has no manifest.json. {way_out}')
    try:
        manifest = json.loads((root / 'manifest.json').read_text(encoding='utf-8'))
        found = manifest['settings']
        files = {str(name): str(digest) for name, digest in manifest['files'].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DigitsError(f'{root}/manifest.json cannot be read ({error!r}). {way_out}') from error
    if found != settings:
        raise DigitsError(f'{root} holds {found}, and {settings} was asked for. {way_out}')
    return manifest | {'files': files}


def _digest(path: Path) -> str | None:
    return hash_of(path) if path.is_file() else None
