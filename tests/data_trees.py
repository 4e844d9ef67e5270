"""Small whole trees of every format that tools/prepare_data.py knows, with the names of the published ones."""

import json
from pathlib import Path

import cv2
import numpy as np

from mmpeft.data.trees import Part, Tree, tree_of

SIDE = 32
XML = (
    '<annotation><size><width>32</width><height>32</height><depth>3</depth></size>{}</annotation>',
    '<object><name>{}</name><difficult>0</difficult><bndbox>'
    '<xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object>',
)


def small_tree(format: str, images: int = 4) -> Tree:
    """The published tree, but of ``images`` images a part."""
    tree = tree_of(format)
    parts = tuple(Part(p.name, p.annotations, p.images, images) for p in tree.parts)
    return Tree(tree.source, parts, tree.classes, tree.general)


def write_tree(format: str, root: Path, images: int = 4) -> Path:
    """Every part with ``images`` images, ``0.jpg`` and on, and an object of class number i modulo 4 in image i."""
    tree = tree_of(format)
    classes = tree.classes[:4]
    for part in tree.parts:
        folder = root / part.images / ('JPEGImages' if format == 'voc' else '')
        for i in range(images):
            picture = np.random.default_rng(i).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
            folder.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(folder / f'{i}.jpg'), picture)
        if part.annotations:
            _WRITERS[format](root, part, [classes[i % 4] for i in range(images)])
    return root


def _write_coco(root: Path, part: Part, labels: list[str]) -> None:
    names = tree_of('coco').classes
    box = dict(bbox=[4, 4, 10, 12], area=120, iscrowd=0)
    content = dict(
        images=[dict(id=i, file_name=f'{i}.jpg', width=SIDE, height=SIDE) for i in range(len(labels))],
        annotations=[
            dict(id=i, image_id=i, category_id=names.index(label) + 1, **box) for i, label in enumerate(labels)
        ],
        categories=[dict(id=i, name=name) for i, name in enumerate(names, start=1)],
    )
    (root / part.annotations).parent.mkdir(exist_ok=True)
    (root / part.annotations).write_text(json.dumps(content))


def _write_voc(root: Path, part: Part, labels: list[str]) -> None:
    for folder in ('ImageSets/Main', 'Annotations'):
        (root / part.images / folder).mkdir(parents=True, exist_ok=True)
    (root / part.annotations).write_text(''.join(f'{i}\n' for i in range(len(labels))))
    for i, label in enumerate(labels):
        (root / part.images / f'Annotations/{i}.xml').write_text(XML[0].format(XML[1].format(label, 1, 1, 32, 32)))


def _write_maps(root: Path, part: Part, labels: list[str]) -> None:
    (root / part.annotations).mkdir(parents=True)
    for i, label in enumerate(labels):
        values = np.zeros((SIDE, SIDE), np.uint8)
        values[4:12] = int(label.split()[1])
        cv2.imwrite(str(root / part.annotations / f'{i}.png'), values)


def _write_quads(root: Path, part: Part, labels: list[str]) -> None:
    (root / part.annotations).mkdir(parents=True)
    for i, label in enumerate(labels):
        (root / part.annotations / f'{i}.txt').write_text(f'gsd:0.2\n2 2 20 2 20 12 2 12 {label} 0\n')


_WRITERS = dict(coco=_write_coco, voc=_write_voc, ade20k=_write_maps, dota=_write_quads, star=_write_quads)
