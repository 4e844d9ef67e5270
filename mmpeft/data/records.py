"""What the annotations of every format are read into: a record an image, with what is wrong about it."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

NOTHING = np.zeros((0, 4), np.float32)


@dataclass
class Record:
    """An image and what is said about it.

    Args:
        name: How list files and label files call it.
        image: The file.
        classes: A class name an object.
        corners: ``(N, 4)`` or ``(N, 8)``: x and y of corners in px, one row an object; none for label maps.
        size: Width and height as the annotations tell them.
        problems: Kind and details.
        number: COCO's id of the image.
        source: The video that COCO's json says it is from.
        left_out: Why training leaves out objects of it, and how many.
        values: The labels in its label map as mmseg reads them, before ``reduce_zero_label``.
    """

    name: str
    image: Path
    classes: list[str] = field(default_factory=list)
    corners: np.ndarray = field(default_factory=lambda: NOTHING)
    size: tuple[int, int] | None = None
    problems: list[tuple[str, str]] = field(default_factory=list)
    number: int | None = None
    source: str | None = None
    left_out: Counter = field(default_factory=Counter)
    values: frozenset[int] = frozenset()


@dataclass
class Contents:
    """What a part holds.

    Args:
        records: Its images, in the order of its annotations.
        problems: Kind and details of what is wrong about the part as a whole.
        names: The class names that it lists, in its order; none where the format has no such list.
    """

    records: list[Record]
    problems: list[tuple[str, str]] = field(default_factory=list)
    names: tuple[str, ...] = ()
