"""Look through a data set before anything is trained on it, and sum up what is there and what is wrong."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmpeft.data import kinds
from mmpeft.data.class_names import check_classes, same_order
from mmpeft.data.findings import PartReport
from mmpeft.data.images import images_of_any_size, in_threads, look_at
from mmpeft.data.label_values import check_labels
from mmpeft.data.loaders import ASSUMED, EXIF, Loader
from mmpeft.data.reading import read_part
from mmpeft.data.records import Contents, Record
from mmpeft.data.trees import Part, Tree, missing_files


@dataclass
class Report:
    """The parts of a data set, and which files of it are not there."""

    root: Path
    source: str
    missing: list[str]
    parts: list[PartReport]
    format: str

    @property
    def problems(self) -> int:
        """How many there are, notes apart."""
        return len(self.missing) + sum(part.count for part in self.parts)

    def __str__(self) -> str:
        """All that was found, and a last line that says whether the data set is whole."""
        lines = [f'Judged as they are read by {ASSUMED[self.format]}, {EXIF}.', *map(str, self.parts)]
        if self.missing:
            lines.append(f'PROBLEM: missing in {self.root}: {", ".join(self.missing)}. Get it from {self.source}.')
        return '\n'.join([*lines, verdict(self.problems)])


def verdict(problems: int) -> str:
    """The last line of a report."""
    return f'{problems} problems.' if problems else 'No problems.'


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
    checked = [check_part(format, root, part, tree.classes, decode) for part in there]
    same_order(checked)
    return Report(root, tree.source, missing, checked, format)


def check_part(
    format: str,
    root: Path,
    part: Part,
    classes: Sequence[str],
    decode: bool = False,
    labels: int | None = None,
    at_most: int | None = None,
) -> PartReport:
    """Look at every annotation and every image of one part.

    Args:
        format: A key of ``TREES``.
        root: The folder of the data set.
        part: The part.
        classes: The names of its classes; none for whatever there is.
        decode: Decode every image.
        labels: The highest value that a label map may hold, 255 apart; by default the number of classes.
        at_most: Look at no more images and label maps than that; whether the others are there is asked all the same.
    """
    report = PartReport(part.name)
    try:
        with images_of_any_size():
            found = read_part(format, root, part, classes, labels or len(classes) or 255, at_most)
            _look_through(report, part, found, decode, at_most)
    except ValueError as error:
        report.problems[kinds.UNREADABLE_ANNOTATION].append(str(error))
        return report
    report.names = found.names
    _check_counts(report, part, found)
    if report.images and part.annotations:
        check_classes(report, format, part, classes)
        if format == 'ade20k':
            check_labels(report, part, found.records, classes)
    return report


def _look_through(report: PartReport, part: Part, found: Contents, decode: bool, at_most: int | None) -> None:
    for kind, where in found.problems:
        report.problems[kind].append(where)

    def look(item: tuple[int, Record]) -> list[tuple[str, str]]:
        place, record = item
        seen = [] if at_most is not None and place >= at_most else _check_image(record, part.loader, decode)
        missing = [] if record.image.is_file() else [(kinds.NO_IMAGE, record.image.name)]
        return [*record.problems, *(missing or seen)]

    records, count = found.records, len(found.records)
    looks = in_threads(look, enumerate(records), count, f'Checking {report.name}')
    for record, problems in zip(records, looks, strict=True):
        report.images += 1
        report.objects.update(record.classes)
        report.left_out.update(record.left_out)
        for kind, where in problems:
            report.problems[kind].append(where)
        if part.annotations and not record.classes and not problems:
            report.problems[kinds.NO_OBJECTS].append(record.name)


def _check_image(record: Record, loader: Loader, decode: bool) -> list[tuple[str, str]]:
    try:
        look = look_at(record.image, loader.turned, decode)
    except OSError as error:
        return [(kinds.UNREADABLE_IMAGE, f'{record.image.name} cannot be read ({error})')]
    notes = [
        (kind, record.image.name) for kind, is_so in ((kinds.TURNED, look.turned), (kinds.DEEP, look.deep)) if is_so
    ]
    if record.size not in (None, look.size):
        turned = ' as EXIF turns it' if look.turned else ''
        return [(kinds.OTHER_SIZE, f'{record.image.name} ({_px(look.size)}{turned}, not {_px(record.size)})'), *notes]
    points = record.corners.reshape(len(record.corners), record.corners.shape[1] // 2, 2)
    if not points.size:
        return notes
    low, high = points.min(axis=1), points.max(axis=1)
    outside = ((high <= 0) | (low >= look.size) | ~np.isfinite(points).all(axis=1)).any(axis=1)
    over = ((low < -1) | (high > np.add(look.size, 1))).any(axis=1) & ~outside
    return notes + [
        (kind, f'{record.classes[i]} in {record.name}')
        for kind, which in ((kinds.OUTSIDE, outside), (kinds.OVER_EDGE, over))
        for i in np.flatnonzero(which)
    ]


def _check_counts(report: PartReport, part: Part, found: Contents) -> None:
    if not report.images:
        report.problems[kinds.EMPTY].append(part.annotations or part.images)
        return
    if part.count not in (None, report.images):
        report.problems[kinds.COUNT].append(f'{report.images} instead of {part.count}')
    if not part.annotations:
        return
    if not report.objects:
        report.problems[kinds.NOTHING_SEEN].append(part.annotations)
    elif not report.trained:
        reasons = ', '.join(f'{count} {reason}' for reason, count in report.left_out.most_common())
        report.problems[kinds.NOTHING_LEFT].append(f'{part.annotations} ({reasons})')


def _px(size: tuple[int, int]) -> str:
    return f'{size[0]} x {size[1]} px'
