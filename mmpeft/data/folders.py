"""Data sets with an annotation file an image, of the same name: label maps, and the label files of DOTA and STAR."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from mmpeft.data import kinds
from mmpeft.data.images import find_images, in_threads
from mmpeft.data.loaders import Loader
from mmpeft.data.quads import loader_faults, read_quads
from mmpeft.data.records import Contents, Record

Read = Callable[[Record, Path], None]
IGNORED = 255  # the label that nothing is trained on


def read_maps(
    images: Path, annotations: Path | None, loader: Loader, labels: int, at_most: int | None = None
) -> Contents:
    """The images of a folder and what mmseg reads in their label maps.

    Args:
        images: The folder of images.
        annotations: That of the label maps; None where there are none.
        loader: How they will be read.
        labels: The highest label as it is drawn; 255 is none.
        at_most: Look into no more maps than that: each has to be decoded.
    """
    return _read(images, annotations, loader, loader.label_ending, lambda *at: _read_map(*at, loader, labels), at_most)


def read_label_files(images: Path, annotations: Path | None, loader: Loader) -> Contents:
    """The images of a folder and the quadrilaterals in their label files."""
    return _read(images, annotations, loader, '.txt', lambda *at: _read_quads(*at, loader))


def _read(
    images: Path, annotations: Path | None, loader: Loader, ending: str, read: Read, at_most: int | None = None
) -> Contents:
    found = _images_of(images, loader)
    if loader.listed is not None:  # mmseg reads what is listed, be it there or not
        listed = [line.strip() for line in Path(loader.listed).read_text(encoding='utf-8').splitlines()]
        names, written = (
            listed,
            {name for name in listed if annotations and (annotations / f'{name}{ending}').is_file()},
        )
    else:
        written = _stems(annotations, ending, loader.deep) if annotations else set()
        # mmrotate reads the images of the label files that are there, which may be those of a few.
        few = loader.image_ending is not None and ending == '.txt'
        names = sorted(written if few and annotations else {*found, *written})

    looked_into = {*names[:at_most]}

    def fill(name: str) -> Record:
        record = Record(name, found.get(name, images / f'{name}{loader.image_ending or ".png"}'))
        if name in written and name in looked_into:
            try:
                read(record, annotations / f'{name}{ending}')
            except (OSError, ValueError, SyntaxError) as error:
                record.problems.append((kinds.UNREADABLE_ANNOTATION, str(error)))
        elif annotations and name not in written:
            record.problems.append((kinds.NO_ANNOTATION, name))
        return record

    return Contents(list(in_threads(fill, names, len(names), f'Reading {annotations or images}')))


def _images_of(images: Path, loader: Loader) -> dict[str, Path]:
    if loader.image_ending is None:
        return find_images(images)
    names = _stems(images, loader.image_ending, loader.deep)
    return {name: images / f'{name}{loader.image_ending}' for name in names}


def _stems(folder: Path, ending: str, deep: bool) -> set[str]:
    """The names of the files with an ending, without it, as from the folder."""
    paths = folder.rglob(f'*{ending}') if deep else folder.glob(f'*{ending}')
    names = (path.relative_to(folder).as_posix() for path in paths)
    return {name.removesuffix(ending) for name in names if not name.rpartition('/')[2].startswith('.')}


def _read_quads(record: Record, path: Path, loader: Loader) -> None:
    record.corners, record.classes, _ = read_quads(path)
    record.problems += loader_faults(path, loader.whole_images)
    points = record.corners.reshape(-1, 4, 2)
    following = np.roll(points, -1, axis=1)
    areas = (points[..., 0] * following[..., 1] - points[..., 1] * following[..., 0]).sum(axis=1)
    record.problems += [(kinds.EMPTY_BOX, f'{record.classes[i]} in {record.name}') for i in np.flatnonzero(areas == 0)]


def _read_map(record: Record, path: Path, loader: Loader, labels: int) -> None:
    """The labels of a map, as ``LoadAnnotations`` of mmseg reads them: Pillow's pixels, 8 bits of each."""
    with Image.open(path) as image:
        pixels = np.asarray(image).squeeze()
        record.size = image.size
        if pixels.ndim != 2:
            raise ValueError(f'{path.name} has pixels of kind {image.mode}, not one label each')
    # Counting bytes is several times as fast as sorting them.
    small = pixels.dtype in (np.uint8, np.bool_)
    values = np.flatnonzero(np.bincount(pixels.ravel().astype(np.uint8))) if small else np.unique(pixels)
    kept = values.astype(np.uint8)
    if (kept != values).any():
        lost = ', '.join(f'{value} read as {read}' for value, read in zip(values, kept, strict=True) if value != read)
        record.problems.append((kinds.WIDE_LABELS, f'{path.name} ({lost[:80]})'))
    record.values = frozenset(kept.tolist()) - {loader.void if loader.void != IGNORED else None}
    beyond = [value for value in sorted(record.values) if labels < value < IGNORED]
    if beyond:
        record.problems.append((kinds.LABEL_RANGE, f'{path.name} ({", ".join(map(str, beyond[:5]))})'))
    first = 0 if loader.reduce_zero_label is False else 1
    ignored = {old for old, new in (loader.label_map or {}).items() if new == IGNORED}
    record.classes = [
        f'label {value}' for value in sorted(record.values) if first <= value <= labels and value - first not in ignored
    ]
