"""The demo's scenes as the published trees of COCO, VOC, ADE20K, DOTA and STAR; the digits stand for ten classes."""

import json
from pathlib import Path

import cv2
import numpy as np
from data_trees import XML

from mmpeft.data.prepare import split_data_set
from mmpeft.data.splitting import Cut
from mmpeft.data.trees import Part, tree_of
from mmpeft.demo.digits import write_coco
from mmpeft.demo.scenes import SIZE, Instance, Scene, make_scenes

PLACES = dict(coco='coco', voc='VOCdevkit', ade20k='ade/ADEChallengeData2016', dota='DOTA', star='STAR')
IMAGES = dict(coco=4, voc=1, ade20k=4, dota=1, star=1)  # a part: about two iterations


def write_data(root: Path) -> None:
    """Every data set of the configs in the folder where they expect it; DOTA and STAR in patches of 128 px, too."""
    for format, place in PLACES.items():
        for part in tree_of(format).parts:
            scenes = make_scenes('train' if 'train' in part.name else 'val', IMAGES[format])
            _WRITERS[format](root / place, part, {f'{part.name}_{i}': scene for i, scene in enumerate(scenes)})
    train, test, trainval = (('train', 'val'), None), (('test',), None), (('train', 'val'), 'trainval')
    for format, (parts, join) in (('dota', train), ('dota', test), ('dota', trainval), ('star', train)):
        cut = Cut(size=128, overlap=32)
        list(split_data_set(format, root / PLACES[format], root / f'split_ss_{format}', parts, cut, join))


def _write_coco(root: Path, part: Part, scenes: dict[str, Scene]) -> None:
    write_coco(scenes.values(), root, part.images)
    digits = root / f'annotations/{part.images}.json'
    content = json.loads(digits.read_text())
    content['categories'] = [dict(id=i, name=name) for i, name in enumerate(tree_of('coco').classes, start=1)]
    digits.write_text(json.dumps(content))
    digits.rename(root / part.annotations)


def _write_voc(root: Path, part: Part, scenes: dict[str, Scene]) -> None:
    _write(root / part.annotations, ''.join(f'{name}\n' for name in scenes))
    for name, scene in scenes.items():
        objects = [XML[1].format(_class('voc', one), *_corners(one)) for one in scene.instances]
        text = XML[0].replace('32', str(SIZE)).format(''.join(objects))
        _write(root / part.images / f'Annotations/{name}.xml', text)
        _draw(root / part.images / f'JPEGImages/{name}.jpg', scene.image)


def _write_maps(root: Path, part: Part, scenes: dict[str, Scene]) -> None:
    for name, scene in scenes.items():
        values = np.zeros((SIZE, SIZE), np.uint8)  # 0 is what has no class
        for one in scene.instances:
            values[one.mask] = one.label + 1
        _draw(root / part.annotations / f'{name}.png', values)
        _draw(root / part.images / f'{name}.jpg', scene.image)


def _write_quads(root: Path, part: Part, scenes: dict[str, Scene]) -> None:
    for name, scene in scenes.items():
        if part.annotations:
            lines = [f'{_quad(one)} {_class(root.name.lower(), one)} 0\n' for one in scene.instances]
            _write(root / part.annotations / f'{name}.txt', ''.join(lines))
        _draw(root / part.images / f'{name}.png', scene.image)


def _class(format: str, instance: Instance) -> str:
    return tree_of(format).classes[instance.label]


def _corners(instance: Instance) -> tuple[int, int, int, int]:
    left, top, width, height = instance.box
    return left + 1, top + 1, left + width, top + height  # VOC counts from 1, the last pixel included


def _quad(instance: Instance) -> str:
    """The corners of the smallest turned box around an instance."""
    points = cv2.findNonZero(instance.mask.astype(np.uint8))
    return ' '.join(f'{value:.1f}' for value in cv2.boxPoints(cv2.minAreaRect(points)).ravel())


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _draw(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), pixels if pixels.ndim == 2 else pixels[..., ::-1])


_WRITERS = dict(coco=_write_coco, voc=_write_voc, ade20k=_write_maps, dota=_write_quads, star=_write_quads)
