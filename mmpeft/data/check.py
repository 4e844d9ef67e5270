"""Look through a data set before anything is trained on it, and sum up what is there and what is wrong."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path

import numpy as np

from mmpeft.data import records as kinds
from mmpeft.data.images import damage, image_size, images_of_any_size, in_threads
from mmpeft.data.records import Record, read_part
from mmpeft.data.trees import Part, Tree, missing_files

UNREADABLE_IMAGE = 'image files that cannot be read'
OUTSIDE = 'objects wholly outside their image'
OVER_EDGE = 'objects that reach over the edge of their image by more than 1 px'
UNKNOWN_CLASS = 'class names that differ from those of the data set'
UNSEEN_CLASS = 'classes without an object'
EMPTY = 'nothing in it'
NOTHING_SEEN = 'no object in any image'
COUNT = 'another number of images than published'
NO_OBJECTS = 'images without objects'
# What the published data sets hold themselves, and training copes with.
NOTES = {OVER_EDGE, UNSEEN_CLASS, NO_OBJECTS, kinds.NO_AREA}
SHOWN = 5  # examples of each kind


@dataclass
class PartReport:
    """What a part holds, and the problems in it by kind."""

    name: str
    images: int = 0
    objects: Counter = field(default_factory=Counter)
    problems: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def __str__(self) -> str:
        """The counts in a line, then a line for each kind of problem."""
        seen = sum(1 for count in self.objects.values() if count)
        lines = [f'{self.name}: {self.images} images, {self.objects.total()} objects of {seen} classes']
        for kind, where in sorted(self.problems.items(), key=lambda item: item[0] in NOTES):
            more = f', and {len(where) - SHOWN} more' if len(where) > SHOWN else ''
            mark = 'note' if kind in NOTES else 'PROBLEM'
            lines.append(f'  {mark}: {len(where)} {kind}: {", ".join(where[:SHOWN])}{more}')
        return '\n'.join(lines)


@dataclass
class Report:
    """The parts of a data set, and which files of it are not there."""

    root: Path
    source: str
    missing: list[str]
    parts: list[PartReport]

    @property
    def problems(self) -> int:
        """How many there are, notes apart."""
        wrong = sum(len(where) for part in self.parts for kind, where in part.problems.items() if kind not in NOTES)
        return len(self.missing) + wrong

    def __str__(self) -> str:
        """All that was found, and a last line that says whether the data set is whole."""
        lines = [str(part) for part in self.parts]
        if self.missing:
            lines.append(f'PROBLEM: missing in {self.root}: {", ".join(self.missing)}. Get it from {self.source}.')
        return '\n'.join([*lines, f'{self.problems} problems.' if self.problems else 'No problems.'])


def check_tree(format: str, root: Path, tree: Tree, decode: bool = False) -> Report:
    """Look at every annotation and every image of a data set.

    Args:
        format: A key of ``TREES``.
        root: Its folder.
        tree: What should be there, as from ``tree_of``.
        decode: Decode every image, instead of reading its head and its end.

    Raises:
        ValueError: ``root`` is no folder.
    """
    if not root.is_dir():
        raise ValueError(f'No folder {root}. Get the data from {tree.source}, or name the folder that they are in.')
    missing = missing_files(tree, root)
    there = [part for part in tree.parts if not {part.annotations, part.images} & {*missing}]
    with images_of_any_size():
        parts = [_check_part(format, root, part, tree.classes, decode) for part in there]
    return Report(root, tree.source, missing, parts)


def _check_part(format: str, root: Path, part: Part, classes: Sequence[str], decode: bool) -> PartReport:
    report = PartReport(part.name)
    try:
        found = read_part(format, root, part, labels=len(classes) or 255)
    except ValueError as error:
        report.problems[kinds.UNREADABLE_ANNOTATION].append(str(error))
        return report

    def look(record: Record) -> list[tuple[str, str]]:
        return [*record.problems, *_check_image(record, decode)]

    for record, problems in zip(found, in_threads(look, found, len(found), f'Checking {part.name}'), strict=True):
        report.images += 1
        report.objects.update(record.classes)
        for kind, where in problems:
            report.problems[kind].append(where)
        if part.annotations and not record.classes and not problems:
            report.problems[NO_OBJECTS].append(record.name)
    _check_counts(report, part, classes)
    return report


def _check_image(record: Record, decode: bool) -> list[tuple[str, str]]:
    if not record.image.is_file():
        return [(kinds.NO_IMAGE, record.image.name)]
    wrong = damage(record.image, decode)
    if wrong:
        return [(UNREADABLE_IMAGE, f'{record.image.name} {wrong}')]
    size = image_size(record.image)
    if record.size not in (None, size):
        return [(kinds.OTHER_SIZE, f'{record.image.name} ({_px(size)}, not {_px(record.size)})')]
    points = record.corners.reshape(len(record.corners), record.corners.shape[1] // 2, 2)
    if not points.size:
        return []
    low, high = points.min(axis=1), points.max(axis=1)
    outside = ((high <= 0) | (low >= size) | ~np.isfinite(points).all(axis=1)).any(axis=1)
    over = ((low < -1) | (high > np.add(size, 1))).any(axis=1) & ~outside
    return [
        (kind, f'{record.classes[i]} in {record.name}')
        for kind, which in ((OUTSIDE, outside), (OVER_EDGE, over))
        for i in np.flatnonzero(which)
    ]


def _check_counts(report: PartReport, part: Part, classes: Sequence[str]) -> None:
    if not report.images:
        report.problems[EMPTY].append(part.annotations or part.images)
        return
    if part.count not in (None, report.images):
        report.problems[COUNT].append(f'{report.images} instead of {part.count}')
    if not part.annotations:
        return
    if not report.objects:
        report.problems[NOTHING_SEEN].append(part.annotations)
        return
    if classes:
        for name in sorted(report.objects.keys() - set(classes)):
            near = get_close_matches(name.replace('_', '-').lower(), classes, 1) or get_close_matches(name, classes, 1)
            hint = f', perhaps {near[0]}' if near else ''
            report.problems[UNKNOWN_CLASS].append(f'{name} ({report.objects[name]} objects{hint})')
        report.problems[UNSEEN_CLASS] += [name for name in classes if name not in report.objects]
        if not report.problems[UNSEEN_CLASS]:
            del report.problems[UNSEEN_CLASS]


def _px(size: tuple[int, int]) -> str:
    return f'{size[0]} x {size[1]} px'
