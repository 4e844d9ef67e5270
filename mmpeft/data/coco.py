"""COCO's json, judged as mmdet's CocoDataset and the COCO metric read it."""

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mmpeft.data import kinds
from mmpeft.data.loaders import Loader
from mmpeft.data.masks import mask_fault
from mmpeft.data.records import Contents, Record

MOST = 1e30  # beyond it, and nan, is no number of a picture
# Why mmdet leaves objects out.
CROWD = 'crowds'
IGNORED = 'marked ignore'
OUTSIDE = 'outside their image'
SMALL = 'less than 1 px wide or high'
ZERO = 'of area 0'
UNNAMED = 'of classes that are not trained on'
UNMASKED = 'without a mask'
SMALL_IMAGE = 'in images under {} px'


def read_json(path: Path) -> dict:
    """A COCO json.

    Raises:
        ValueError: It is none; the message says which list is missing.
    """
    try:
        content = json.loads(path.read_bytes())
        missing = [key for key in ('images', 'annotations', 'categories') if not isinstance(content.get(key), list)]
    except UnicodeDecodeError as error:
        raise ValueError(f'{path} is no COCO json: it is no UTF-8 text ({error}); save it as that.') from None
    except (ValueError, AttributeError) as error:
        raise ValueError(f'{path} is no COCO json: {error}.') from None
    if missing:
        raise ValueError(f'{path} is no COCO json: it has no list of {" and ".join(missing)}.')
    return content


def read_coco(path: Path, images: Path, loader: Loader, classes: Sequence[str]) -> Contents:
    """The images of a json, and for each object whether mmdet trains on it.

    Args:
        path: The json.
        images: The folder that its file names begin in.
        loader: How it will be read.
        classes: The names of the classes that are trained on; none for all.

    Raises:
        ValueError: It is no COCO json.
    """
    content, found = read_json(path), Contents([])
    try:
        names = {category['id']: category['name'] for category in content['categories']}
        found.names = tuple(names.values())
        for name in found.names:
            if not isinstance(name, str):
                raise ValueError(f'the name {name!r} of a category')
        found.problems += [*_encoding(path), *_repeated(content), *_mixed_ids(content)]
        records = _read_images(content['images'], images, found)
        _read_objects(content['annotations'], records, names, loader, {*classes} or {*found.names}, found)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f'{path} is no COCO json: an entry lacks or misstates {error}.') from None
    found.records = list(records.values())
    return found


def _encoding(path: Path) -> list[tuple[str, str]]:
    with path.open('rb') as file:
        start = file.read(4)
    if start.startswith(b'\xef\xbb\xbf'):
        return [(kinds.ENCODING, f'{path.name} begins with a byte order mark')]
    return [(kinds.ENCODING, f'{path.name} is UTF-16 or UTF-32')] if b'\0' in start else []


def _repeated(content: dict) -> list[tuple[str, str]]:
    """Ids and names that stand for two things."""
    found = []
    for key in ('id', 'name'):
        counts = Counter(category[key] for category in content['categories'])
        found += [(kinds.SAME_CATEGORY, f'{key} {value!r}') for value, count in counts.items() if count > 1]
    counts = Counter(entry['id'] for entry in content['annotations'] if 'id' in entry)
    return found + [(kinds.SAME_ID, f'id {value} {count} times') for value, count in counts.items() if count > 1]


def _mixed_ids(content: dict) -> list[tuple[str, str]]:
    """The COCO metric sorts ids, and numbers and text have no order."""
    found = []
    for key in ('images', 'categories'):
        ids = [entry['id'] for entry in content[key]]
        if len({isinstance(value, str) for value in ids}) > 1 or not all(isinstance(v, int | float | str) for v in ids):
            strange = next(value for value in ids if not isinstance(value, int | float))
            found.append((kinds.TEXT_NUMBER, f'id {strange!r} among {key}'))
    return found


def _read_images(entries: list[dict], images: Path, found: Contents) -> dict[object, Record]:
    records: dict[object, Record] = {}
    files: dict[str, object] = {}
    for entry in entries:
        name, size = entry['file_name'], (entry['width'], entry['height'])
        if not all(map(_is_number, size)):
            found.problems.append((kinds.TEXT_NUMBER, f'width {size[0]!r}, height {size[1]!r} of {name}'))
            size = None
        if entry['id'] in records:
            records[entry['id']].problems.append((kinds.LISTED_TWICE, f'{name} (id {entry["id"]})'))
            continue
        if name in files:
            found.problems.append((kinds.SAME_FILE, f'{name} (ids {files[name]} and {entry["id"]})'))
        files[name] = entry['id']
        source = entry.get('video_id')
        records[entry['id']] = Record(name, images / name, size=size, number=entry['id'])
        records[entry['id']].source = None if source is None else f'video {source}'
    return records


def _read_objects(
    entries: list[dict],
    records: dict[object, Record],
    names: dict[object, str],
    loader: Loader,
    wanted: set[str],
    found: Contents,
) -> None:
    boxes = defaultdict(list)
    for place, entry in enumerate(entries):
        label, record = f'annotation {entry.get("id", f"number {place}")}', records.get(entry['image_id'])
        left, top, width, height = entry['bbox']
        if record is None:
            found.problems.append((kinds.UNKNOWN_IMAGE, f'{label} of image id {entry["image_id"]}'))
            continue
        where = f'{label} in {record.name}'
        lacking = [key for key in ('id', 'area', 'iscrowd') if key not in entry]
        if lacking:
            record.problems.append((kinds.LACKING_KEY, f'{" and ".join(lacking)} of {where}'))
        name = names.get(entry['category_id'], f'category id {entry["category_id"]}')
        numbers = dict(bbox=entry['bbox'], **{key: [entry.get(key, 1)] for key in ('id', 'area', 'iscrowd')})
        text = [key for key, values in numbers.items() if not all(map(_is_number, values))]
        if text:
            record.problems.append((kinds.TEXT_NUMBER, f'{" and ".join(text)} of {where}'))
            continue
        if entry.get('iscrowd', 0) not in (0, 1):
            record.problems.append((kinds.CROWD_VALUE, f'{entry["iscrowd"]} of {where}'))
        record.classes.append(name)
        boxes[entry['image_id']].append((left, top, left + width, top + height))
        if record.size is not None:
            _judge(entry, record, where, name in wanted, loader)
    for number, corners in boxes.items():
        records[number].corners = np.array(corners, np.float64)


def _judge(entry: dict, record: Record, where: str, is_wanted: bool, loader: Loader) -> None:
    """Whether mmdet trains on an object, in the order in which CocoDataset asks."""
    left, top, width, height = entry['bbox']
    inside = all(
        min(start + length, side) > max(start, 0)
        for start, length, side in zip((left, top), (width, height), record.size, strict=True)
    )
    reason = None
    if width < 1 or height < 1:
        record.problems.append((kinds.NO_AREA, where))
        reason = SMALL
    elif not inside:
        reason = OUTSIDE
    elif entry.get('ignore'):
        reason = IGNORED
    elif entry.get('area', 1) <= 0:
        record.problems.append((kinds.AREA_ZERO, where))
        reason = ZERO
    elif not is_wanted:
        reason = UNNAMED
    elif entry.get('iscrowd'):
        reason = CROWD
    elif min(record.size) < loader.min_size and loader.trained:
        reason = SMALL_IMAGE.format(loader.min_size)
    if reason in (None, CROWD) and loader.masks is not False:
        fault = mask_fault(entry.get('segmentation'), record.size, loader.polygons and reason is None)
        if fault:
            record.problems.append((kinds.NO_MASK if loader.masks else kinds.BOXES_ALONE, f'{where} ({fault})'))
            reason = UNMASKED if loader.masks else reason
    if reason:
        record.left_out[reason] += 1


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and -MOST < value < MOST
