"""Whether the names of the classes are those of the data, and whether labels get the right ones."""

from collections.abc import Iterator, Sequence
from difflib import get_close_matches

from mmpeft.data import kinds
from mmpeft.data.findings import PartReport
from mmpeft.data.trees import Part


def check_classes(report: PartReport, format: str, part: Part, classes: Sequence[str]) -> None:
    """Compare the names of the classes with those of the objects and of the json."""
    listed, known = report.names, classes or report.names
    for name in sorted(report.objects.keys() - set(known)) if known else ():
        near = get_close_matches(name.replace('_', '-').lower(), known, 1) or get_close_matches(name, known, 1)
        hint = f', perhaps {near[0]}' if near else ''
        same = any(_plain(name) == _plain(other) for other in known)
        # mmrotate ends with a KeyError; mmdet leaves the object out, be it meant so or a slip.
        chosen = part.loader.chosen and format in ('coco', 'voc') and not same and not name.startswith('category id ')
        report.problems[kinds.NOT_CHOSEN if chosen else kinds.UNKNOWN_CLASS].append(
            f'{name} ({report.objects[name]} objects{hint})'
        )
    if not classes:
        return
    if report.objects:
        unseen = [name for name in classes if name not in report.objects]
        if len(unseen) == len(classes) and format != 'ade20k':
            report.problems[kinds.NO_MATCH].append(_both_sides(classes, listed or sorted(report.objects)))
        elif unseen:
            report.problems[kinds.UNSEEN_CLASS] += unseen
    if format == 'coco' and {*listed} & {*classes}:
        for kind, where in _misnumbered(listed, classes):
            report.problems[kind].append(where)


def same_order(parts: Sequence[PartReport]) -> None:
    """Compare the lists of names of the parts with each other."""
    listing = [part for part in parts if part.names]
    for part in listing[1:]:
        if part.names != listing[0].names:
            where = f'{part.name} lists {_shown(part.names)}, {listing[0].name} {_shown(listing[0].names)}'
            part.problems[kinds.OTHER_PART].append(where)


def _misnumbered(listed: Sequence[str], classes: Sequence[str]) -> Iterator[tuple[str, str]]:
    """CocoDataset numbers those categories of the json that are among the classes, in the order of the json."""
    lacking = [name for name in classes if name not in listed]
    if lacking:
        yield kinds.LACKING_CLASS, f'{", ".join(map(repr, lacking))}; the json lists {_shown(listed)}'
    numbered = [name for name in listed if name in classes]
    if numbered != [name for name in classes if name in listed] or (lacking and numbered != list(classes)):
        yield kinds.ORDER, f'{_shown(classes)}; set classes={_shown(numbered)}'


def _both_sides(classes: Sequence[str], found: Sequence[str]) -> str:
    return f'classes are {_shown(classes)}, and the data have {_shown(found)}'


def _shown(names: Sequence[str], most: int = 20) -> str:
    """The names as a tuple that can be pasted."""
    text = ', '.join(map(repr, names[:most])) + (', ...' if len(names) > most else '')
    return f'({text},)' if len(names) == 1 else f'({text})'


def _plain(name: str) -> str:
    return ''.join(letter for letter in name.casefold() if letter.isalnum())
