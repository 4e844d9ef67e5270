"""What ``mmpeft split``, ``subset`` and ``holdout`` do with a data set, in one call each; check.py has the fourth."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from mmpeft.data.kinds import NO_ANNOTATION, UNREADABLE_ANNOTATION
from mmpeft.data.reading import read_part
from mmpeft.data.records import Record
from mmpeft.data.splitting import Cut, largest_image, memory, split_folders
from mmpeft.data.subsets import choose_fraction, choose_heldout, choose_shots, group_by_source
from mmpeft.data.trees import Part, missing_files, tree_of
from mmpeft.data.writing import refuse_existing, write_choice


def split_data_set(
    format: str, root: Path, out: Path, parts: Sequence[str], cut: Cut, join: str | None = None, jobs: int = 4
) -> Iterator[str]:
    """Split the parts of DOTA or STAR into ``out/PART``, or all into ``out/JOIN``.

    Yields:
        What it is about to hold in memory, and what was done, a line each.

    Raises:
        ValueError: Files are missing, or as in ``split_folders``.
    """
    tree = tree_of(format, parts)
    missing = missing_files(tree, root)
    if missing:
        raise ValueError(f'Missing in {root}: {", ".join(missing)}. Get it from {tree.source}, or choose with --part.')
    folders: dict[str, list[tuple[Path, Path | None]]] = {}
    for part in tree.parts:
        labels = root / part.annotations if part.annotations else None
        folders.setdefault(join or part.name, []).append((root / part.images, labels))
    for name, pairs in folders.items():
        width, height = largest_image(pairs)
        taken = memory(width, height) / 1e6
        yield f'{name}: one image at a time is held in memory, the largest {width} x {height} px, {taken:,.0f} MB'
        yield f'{name}: {split_folders(pairs, out / name, cut, jobs)}'


def make_subset(
    format: str,
    root: Path,
    out: Path,
    part: str | Part | None = None,
    fraction: float | None = None,
    shots: int | None = None,
    group: str | None = None,
    seed: int = 0,
) -> str:
    """Write annotations of a share of the images, or of a few for each class.

    Returns:
        What was chosen, in a line.

    Raises:
        ValueError: The amount makes no sense, ``out`` exists, or the annotations cannot be read.
    """
    refuse_existing(format, out)
    chosen_part, records = _read(format, root, part)
    if shots is None:
        chosen = choose_fraction(group_by_source(records, group), fraction or 0, seed)
    elif group is not None:
        raise ValueError('Shots count images, whatever their source; leave the group out.')
    else:
        chosen = choose_shots(records, shots, seed)
    return _told(write_choice(format, root, chosen_part, chosen, out), chosen, records)


def make_holdout(
    format: str,
    root: Path,
    out: Path,
    part: str | Part | None = None,
    fraction: float = 0.02,
    group: str | None = None,
    seed: int = 0,
) -> Iterator[str]:
    """Write annotations of a held-out set into ``out/heldout`` and of all others into ``out/train``.

    Yields:
        What each holds, in a line.

    Raises:
        ValueError: Nothing can be held out, files exist, or the annotations cannot be read.
    """
    for name in ('heldout', 'train'):
        refuse_existing(format, out / name)
    chosen_part, records = _read(format, root, part)
    held = choose_heldout(group_by_source(records, group), fraction, seed)
    names = {record.name for record in held}
    rest = [record for record in records if record.name not in names]
    for name, chosen in (('heldout', held), ('train', rest)):
        yield _told(write_choice(format, root, chosen_part, chosen, out / name), chosen, records)


def _read(format: str, root: Path, part: str | Part | None) -> tuple[Part, list[Record]]:
    found = part if isinstance(part, Part) else tree_of(format, [part] if part else ()).parts[0]
    contents = read_part(format, root, found)
    records = contents.records
    if not found.annotations or not records:
        raise ValueError(f'{found.name} of {root} holds no annotated images to choose from.')
    for kind, where in [*contents.problems, *(problem for record in records for problem in record.problems)]:
        if kind in (NO_ANNOTATION, UNREADABLE_ANNOTATION):
            raise ValueError(f'{found.name} of {root} has {kind}: {where}. The check lists all that is wrong.')
    return found, records


def _told(path: Path, chosen: Sequence[Record], records: Sequence[Record]) -> str:
    count = Counter(label for record in chosen for label in {*record.classes})
    labels = {label for record in records for label in record.classes}
    per_class = [count[label] for label in labels] or [0]
    return (
        f'{path}: {len(chosen)} of {len(records)} images, {len(count)} of {len(labels)} classes, '
        f'{min(per_class)} to {max(per_class)} images a class'
    )
