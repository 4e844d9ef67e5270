"""Read the annotations of every format into one form: a record an image, with what is wrong about it."""

import json
import xml.etree.ElementTree as ElementTree
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from mmpeft.data.images import find_images, in_threads
from mmpeft.data.quads import read_quads
from mmpeft.data.trees import Part

# Kinds of problems, as they are shown.
UNREADABLE_ANNOTATION = 'annotations that cannot be read'
NO_ANNOTATION = 'images without their annotation file'
NO_IMAGE = 'image files that are missing'
UNKNOWN_IMAGE = 'annotations of images that are not listed'
LISTED_TWICE = 'images listed twice'
NO_AREA = 'boxes without an area'
LABEL_RANGE = 'label maps with values above the number of classes'
OTHER_SIZE = 'images of another size than their annotations tell'

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
    """

    name: str
    image: Path
    classes: list[str] = field(default_factory=list)
    corners: np.ndarray = field(default_factory=lambda: NOTHING)
    size: tuple[int, int] | None = None
    problems: list[tuple[str, str]] = field(default_factory=list)
    number: int | None = None
    source: str | None = None


def read_part(format: str, root: Path, part: Part, labels: int = 150) -> list[Record]:
    """The records of a part in the order of its annotations.

    Args:
        format: ``coco``, ``voc``, ``ade20k``, ``dota`` or ``star``.
        root: The folder of the data set.
        part: Which part of it.
        labels: The highest value that a label map may hold, 255 apart.

    Raises:
        ValueError: A file or folder of the part is missing, or its json or list cannot be read at all.
    """
    for path in (part.annotations, part.images):
        if path and not (root / path).exists():
            raise ValueError(f'{part.name}: no {root / path}.')
    annotations, images = part.annotations and root / part.annotations, root / part.images
    if format == 'coco':
        return _read_coco(_need(annotations), images)
    if format == 'voc':
        return _read_voc(_need(annotations), images)
    if format == 'ade20k':
        return _read_folders(images, annotations, '.png', lambda record, path: _read_map(record, path, labels))
    return _read_folders(images, annotations, '.txt', _read_quads)


def read_json(path: Path) -> dict:
    """A COCO json.

    Raises:
        ValueError: It is none; the message says which list is missing.
    """
    try:
        content = json.loads(path.read_bytes())
        missing = [key for key in ('images', 'annotations', 'categories') if not isinstance(content.get(key), list)]
    except (ValueError, AttributeError) as error:
        raise ValueError(f'{path} is no COCO json: {error}.') from None
    if missing:
        raise ValueError(f'{path} is no COCO json: it has no list of {" and ".join(missing)}.')
    return content


def _need(annotations: Path | None) -> Path:
    if annotations is None or not annotations.is_file():
        raise ValueError(f'This format needs an annotation file, not {annotations}.')
    return annotations


def _read_coco(annotations: Path, images: Path) -> list[Record]:
    content = read_json(annotations)
    records, boxes, lost = {}, defaultdict(list), []
    try:
        names = {category['id']: category['name'] for category in content['categories']}
        for entry in content['images']:
            name, size = entry['file_name'], (entry['width'], entry['height'])
            source = entry.get('video_id')
            record = Record(name, images / name, size=size, number=entry['id'])
            record.source = None if source is None else f'video {source}'
            if entry['id'] in records:
                records[entry['id']].problems.append((LISTED_TWICE, f'{name} (id {entry["id"]})'))
                continue
            records[entry['id']] = record
        for entry in content['annotations']:
            left, top, width, height = entry['bbox']
            record = records.get(entry['image_id'])
            if record is None:
                lost.append((UNKNOWN_IMAGE, f'annotation {entry["id"]} of image id {entry["image_id"]}'))
                continue
            if width <= 0 or height <= 0:
                record.problems.append((NO_AREA, f'annotation {entry["id"]} in {record.name}'))
            record.classes.append(names.get(entry['category_id'], f'category id {entry["category_id"]}'))
            boxes[entry['image_id']].append((left, top, left + width, top + height))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f'{annotations} is no COCO json: an entry lacks or misstates {error}.') from None
    for number, corners in boxes.items():
        records[number].corners = np.array(corners, np.float64)
    found = list(records.values())
    if found:
        found[0].problems += lost
    return found


def _read_voc(annotations: Path, folder: Path) -> list[Record]:
    names = [line.split()[0] for line in annotations.read_text().splitlines() if line.strip()]
    records = [Record(name, folder / 'JPEGImages' / f'{name}.jpg') for name in dict.fromkeys(names)]
    if len(records) < len(names):
        records[0].problems.append((LISTED_TWICE, f'{len(names) - len(records)} names in {annotations.name}'))

    def fill(record: Record) -> Record:
        path = folder / 'Annotations' / f'{record.name}.xml'
        if not path.is_file():
            record.problems.append((NO_ANNOTATION, record.name))
            return record
        try:
            tree = ElementTree.parse(path)
            if tree.find('size') is not None:
                record.size = int(tree.findtext('size/width')), int(tree.findtext('size/height'))
            found = tree.findall('object')
            sides = [[float(x.findtext(f'bndbox/{k}')) for k in ('xmin', 'ymin', 'xmax', 'ymax')] for x in found]
            record.classes = [str(x.findtext('name')) for x in found]
        except (ElementTree.ParseError, TypeError, ValueError) as error:
            record.problems.append((UNREADABLE_ANNOTATION, f'{path.name} ({error})'))
            return record
        record.corners = np.array(sides, np.float64).reshape(-1, 4) - 1  # VOC counts pixels from 1
        empty = (record.corners[:, 2:] <= record.corners[:, :2]).any(axis=1).sum()
        record.problems += [(NO_AREA, record.name)] * int(empty)
        return record

    return list(in_threads(fill, records, len(records), f'Reading {annotations.name}'))


def _read_folders(
    images: Path, annotations: Path | None, suffix: str, read: Callable[[Record, Path], None]
) -> list[Record]:
    """One annotation file an image, of the same name."""
    found = find_images(images)
    written = {p.stem for p in annotations.iterdir() if p.suffix == suffix} if annotations else set()

    def fill(name: str) -> Record:
        record = Record(name, found.get(name, images / f'{name}.png'))
        if name in written:
            try:
                read(record, annotations / f'{name}{suffix}')
            except (OSError, ValueError, SyntaxError) as error:
                record.problems.append((UNREADABLE_ANNOTATION, str(error)))
        elif annotations:
            record.problems.append((NO_ANNOTATION, name))
        return record

    names = sorted({*found, *written})
    return list(in_threads(fill, names, len(names), f'Reading {annotations or images}'))


def _read_quads(record: Record, path: Path) -> None:
    record.corners, record.classes, _ = read_quads(path)


def _read_map(record: Record, path: Path, labels: int) -> None:
    with Image.open(path) as image:
        if image.mode not in ('L', 'P', '1'):
            raise ValueError(f'{path.name} has pixels of kind {image.mode}, not one label each')
        values = np.flatnonzero(np.bincount(np.asarray(image.convert('L') if image.mode == '1' else image).ravel()))
        record.size = image.size
    beyond = values[(values > labels) & (values != 255)]
    if beyond.size:
        record.problems.append((LABEL_RANGE, f'{path.name} ({", ".join(map(str, beyond[:5]))})'))
    record.classes = [f'label {value}' for value in values if 0 < value <= labels]
