"""Choose images: a share of them, a few for each class, or a held-out set, the same ones for the same seed anywhere.

The images stand in an order that the seed and their names alone decide, and every choice is the first ones of it. So
1 % is inside 5 % is inside 10 %, and 1 shot inside 5, whatever was chosen before.
"""

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence

import numpy as np

from mmpeft.data.records import Record

# The name of a patch; its first group is that of the image.
PATCH = r'(?P<image>.+?)__(?P<numbers>(?:\d+(?:\.\d+)?__){1,2})(?P<x>-?\d+)___(?P<y>-?\d+)'
AT_ONCE = 512  # sources that are compared at a time


def shuffled(names: Sequence[str], seed: int) -> list[str]:
    """The names in the order of the SHA-256 of seed and name: no name's place depends on another's."""
    return sorted(names, key=lambda name: hashlib.sha256(f'{seed}:{name}'.encode()).digest())


def group_by_source(records: Sequence[Record], pattern: str | None = None) -> dict[str, list[Record]]:
    """Images that show the same thing: patches of one image, frames of one video.

    Args:
        records: The images.
        pattern: A regular expression that matches at the start of a name, and whose first group (or all that matches)
            is the source; by default the image that a patch is named after, or COCO's ``video_id``.

    Raises:
        ValueError: The expression cannot be read, or fits no name.
    """
    try:
        rule = re.compile(pattern or PATCH)
    except re.error as error:
        raise ValueError(f'The pattern {pattern!r} is no regular expression: {error}.') from None
    groups, fits = defaultdict(list), 0
    for record in records:
        match = rule.match(record.name)
        fits += match is not None
        source = (match[1] if rule.groups else match[0]) if match else record.source or record.name
        groups[source].append(record)
    if pattern and not fits:
        raise ValueError(f'The pattern {pattern!r} fits no name, such as {next(iter(records)).name}.')
    return dict(groups)


def choose_fraction(groups: dict[str, list[Record]], fraction: float, seed: int) -> list[Record]:
    """A share of the sources, with all their images; at least one.

    Raises:
        ValueError: The share is not above 0 and at most 1.
    """
    _check_share(fraction)
    count = max(1, round(fraction * len(groups)))
    return [record for name in shuffled(list(groups), seed)[:count] for record in groups[name]]


def choose_shots(records: Sequence[Record], shots: int, seed: int) -> list[Record]:
    """For each class the first ``shots`` images that hold it; each comes with all its objects, of other classes too.

    Raises:
        ValueError: Less than one image is asked for.
    """
    if shots < 1:
        raise ValueError(f'{shots} shots are none; give 1 or more.')
    by_name = {record.name: record for record in records}
    seen, chosen = Counter(), []
    for name in shuffled(list(by_name), seed):
        classes = set(by_name[name].classes)
        if any(seen[label] < shots for label in classes):
            chosen.append(by_name[name])
        seen.update(classes)
    return chosen


def choose_heldout(groups: dict[str, list[Record]], fraction: float, seed: int) -> list[Record]:
    """Sources whose images are about a share of all images, and of the images of each class.

    Sources are taken as long as they bring the counts nearer to that share, the best of the next 512 in the seeded
    order first. None is taken that would leave a class without images to train on.

    Raises:
        ValueError: The share is not between 0 and 1, or every source is too large or needed for training.
    """
    _check_share(fraction, most=0.5)
    names = shuffled(list(groups), seed)
    counts = _image_counts([groups[name] for name in names])
    total = counts.sum(axis=0)
    target = fraction * total
    held, chosen = np.zeros_like(total), []
    for start in range(0, len(names), AT_ONCE):
        near = list(range(start, min(start + AT_ONCE, len(names))))
        while near:
            after = held + counts[near]
            costs = np.where((after < total).all(axis=1), _cost(after, target), np.inf)
            best = int(costs.argmin())
            if costs[best] >= _cost(held, target):
                break
            index = near.pop(best)
            held = held + counts[index]
            chosen.append(names[index])
    if not chosen:
        least = min(len(records) for records in groups.values())
        raise ValueError(
            f'No source can be held out for {fraction:.1%} of the images: each of the {len(groups)} is too large (the '
            f'smallest has {least} of {int(total[0])} images) or the only one of a class. Give a larger fraction, or '
            'group by something smaller.'
        )
    return [record for name in chosen for record in groups[name]]


def _check_share(fraction: float, most: float = 1.0) -> None:
    if not 0 < fraction <= most:
        raise ValueError(f'A fraction is above 0 and at most {most:g}, got {fraction:g}.')


def _image_counts(groups: Sequence[Sequence[Record]]) -> np.ndarray:
    """For each source, how many images it has, and how many with each class. Shape: (sources, 1 + classes)."""
    column: dict[Hashable, int] = {}
    for records in groups:
        for record in records:
            for label in record.classes:
                column.setdefault(label, 1 + len(column))
    counts = np.zeros((len(groups), 1 + len(column)))
    for row, records in zip(counts, groups, strict=True):
        row[0] = len(records)
        for record in records:
            for label in set(record.classes):
                row[column[label]] += 1
    return counts


def _cost(held: np.ndarray, target: np.ndarray) -> np.ndarray:
    """How far counts are from those wanted; the number of all images weighs as much as all classes together."""
    off = (held - target) ** 2 / target
    return off[..., 0] + off[..., 1:].sum(axis=-1) / max(1, off.shape[-1] - 1)
