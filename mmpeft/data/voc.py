"""VOC's list and XML files, judged as mmdet's XMLDataset reads them."""

import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from math import isfinite
from pathlib import Path

import numpy as np

from mmpeft.data import kinds
from mmpeft.data.images import in_threads
from mmpeft.data.loaders import Loader
from mmpeft.data.records import Contents, Record

SIDES = ('xmin', 'ymin', 'xmax', 'ymax')


def read_voc(path: Path, folder: Path, loader: Loader, classes: Sequence[str]) -> Contents:
    """The images of a list, and for each object whether mmdet trains on it.

    Args:
        path: The list, a name a line: nothing else may stand in a line, and none may be empty.
        folder: The folder with those of images and annotations.
        loader: How it will be read.
        classes: The names of the classes that are trained on; none for all.
    """
    lines = [line.rstrip('\r\n') for line in path.read_text(encoding='utf-8').splitlines(True)]
    found = Contents([])
    strange = [line for line in lines if line != line.strip('\ufeff \t') or not line or len(line.split()) > 1]
    if strange:
        where = f'{len(strange)} lines of {path.name} with more or less than a name, such as {strange[0]!r}'
        found.problems.append((kinds.UNREADABLE_ANNOTATION, where))
    names = [line.strip('\ufeff').split()[0] for line in lines if line.strip('\ufeff \t')]
    if len({*names}) < len(names):
        found.problems.append((kinds.LISTED_TWICE, f'{len(names) - len({*names})} names in {path.name}'))
    images, annotations = (folder / name for name in loader.folders)
    found.records = [Record(name, images / f'{name}.jpg') for name in dict.fromkeys(names)]

    def fill(record: Record) -> None:
        file = annotations / f'{record.name}.xml'
        if not file.is_file():
            record.problems.append((kinds.NO_ANNOTATION, record.name))
            return
        try:
            _read_objects(file, record, loader, classes)
        except (ElementTree.ParseError, TypeError, ValueError, AttributeError, OverflowError) as error:
            record.problems.append((kinds.UNREADABLE_ANNOTATION, f'{file.name} ({error})'))

    for _ in in_threads(fill, found.records, len(found.records), f'Reading {path.name}'):
        pass
    return found


def _read_objects(file: Path, record: Record, loader: Loader, classes: Sequence[str]) -> None:
    tree = ElementTree.parse(file)
    if tree.find('size') is not None:
        record.size = int(tree.find('size/width').text), int(tree.find('size/height').text)
    boxes = []
    for entry in tree.findall('object'):
        # mmdet cuts the decimals off; VOC counts pixels from 1.
        sides = [float(entry.find(f'bndbox/{side}').text) for side in SIDES]
        if not all(map(isfinite, sides)):
            raise ValueError(f'{dict(zip(SIDES, sides, strict=True))}')
        left, top, right, bottom = boxes_of = [int(side) - 1 for side in sides]
        difficult = entry.find('difficult')
        is_difficult = difficult is not None and int(difficult.text)
        name = str(entry.find('name').text)
        record.classes.append(name)
        boxes.append(boxes_of)
        if classes and name not in classes:
            record.left_out['of classes that are not trained on'] += 1
        elif is_difficult:
            record.left_out['difficult'] += 1
        elif min(right - left, bottom - top) < loader.min_box:
            record.left_out[f'under {loader.min_box} px'] += 1
        elif record.size is not None and min(record.size) < loader.min_size and loader.trained:
            record.left_out[f'in images under {loader.min_size} px'] += 1
        elif right <= left or bottom <= top:
            record.problems.append((kinds.EMPTY_BOX, f'{name} in {record.name}'))
    record.corners = np.array(boxes, np.float64).reshape(-1, 4)
