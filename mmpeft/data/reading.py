"""Read a part of a data set, whatever its format."""

from collections.abc import Sequence
from pathlib import Path

from mmpeft.data.coco import read_coco
from mmpeft.data.folders import read_label_files, read_maps
from mmpeft.data.records import Contents
from mmpeft.data.trees import Part
from mmpeft.data.voc import read_voc


def read_part(
    format: str, root: Path, part: Part, classes: Sequence[str] = (), labels: int = 150, at_most: int | None = None
) -> Contents:
    """What a part holds, in the order of its annotations.

    Args:
        format: ``coco``, ``voc``, ``ade20k``, ``dota`` or ``star``.
        root: The folder of the data set.
        part: Which part of it.
        classes: The names of the classes that are trained on; none for all.
        labels: The highest value that a label map may hold, 255 apart.
        at_most: Look into no more label maps than that.

    Raises:
        ValueError: A file or folder of the part is missing, or its json or list cannot be read at all.
    """
    for path in (part.annotations, part.images):
        if path and not (root / path).exists():
            raise ValueError(f'{part.name}: no {root / path}.')
    annotations, images = part.annotations and root / part.annotations, root / part.images
    if format in ('coco', 'voc'):
        if annotations is None or not annotations.is_file():
            raise ValueError(f'This format needs an annotation file, not {annotations}.')
        return (read_coco if format == 'coco' else read_voc)(annotations, images, part.loader, classes)
    if format == 'ade20k':
        return read_maps(images, annotations, part.loader, labels, at_most)
    return read_label_files(images, annotations, part.loader)
