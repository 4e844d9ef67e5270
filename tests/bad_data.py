"""Small data sets of each format, a config that reads them, and ways to break them."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.registry import DATASETS, init_default_scope
from PIL import Image
from tiny_data import CLASSES, write_data

from mmpeft.data.check import Report, check_tree
from mmpeft.data.trees import tree_of
from mmpeft.mm.checks import check_data, register_library

JSON = 'annotations/train.json'
OBJECT = (
    '<object><name>{}</name><difficult>0</difficult><bndbox>'
    '<xmin>9</xmin><ymin>17</ymin><xmax>33</xmax><ymax>41</ymax></bndbox></object>'
)
XML = '<annotation><size><width>64</width><height>64</height></size>{}</annotation>'
SCOPES = dict(coco='mmdet', voc='mmdet', ade20k='mmseg', dota='mmrotate')
PARTS = dict(coco=f'own={JSON}:train', voc='own=list.txt:', ade20k='own=labels:train', dota='own=labelTxt:train')
LOAD = dict(type='LoadImageFromFile')
PIPELINES = dict(
    mmdet=[LOAD, dict(type='LoadAnnotations', with_bbox=True), dict(type='PackDetInputs')],
    mmseg=[LOAD, dict(type='LoadAnnotations'), dict(type='PackSegInputs')],
    mmrotate=[
        dict(type='mmdet.LoadImageFromFile'),
        dict(type='mmdet.LoadAnnotations', with_bbox=True, box_type='qbox'),
        dict(type='ConvertBoxType', box_type_mapping=dict(gt_bboxes='rbox')),
        dict(type='mmdet.PackDetInputs'),
    ],
)
PATHS = dict(
    coco=dict(type='CocoDataset', ann_file=JSON, data_prefix=dict(img='train')),
    voc=dict(type='XMLDataset', ann_file='list.txt', data_prefix=dict(sub_data_root='')),
    ade20k=dict(type='BaseSegDataset', data_prefix=dict(img_path='train', seg_map_path='labels')),
    dota=dict(type='DOTADataset', ann_file='labelTxt', data_prefix=dict(img_path='train'), img_suffix='jpg'),
)


@dataclass
class Data:
    """A data set on disk and the config that reads it."""

    format: str
    root: Path
    cfg: Config

    @property
    def dataset(self) -> dict:
        return self.cfg.train_dataloader.dataset

    def check(self) -> Report:
        """The report of the check that knows no config but the names of the classes."""
        root = self.root / 'VOC' if self.format == 'voc' else self.root
        part = PARTS[self.format].replace(':', ':.') if self.format == 'voc' else PARTS[self.format]
        return check_tree(self.format, root, tree_of(self.format, [part], self.dataset.metainfo.classes))

    def ask_training(self) -> None:
        """What tools/train.py asks before it builds anything."""
        check_data(self.cfg, 'train')

    def read(self) -> tuple[int, int]:
        """The entries that the stock loader reads, and the objects or labelled pixels in them."""
        init_default_scope(self.cfg.default_scope)
        dataset = DATASETS.build(self.dataset)
        samples = [dataset[i]['data_samples'] for i in range(len(dataset))]
        if self.format == 'ade20k':
            return len(samples), sum(int((sample.gt_sem_seg.data != 255).sum()) for sample in samples)
        return len(samples), sum(len(sample.gt_instances) for sample in samples)

    def score(self) -> dict[str, float]:
        """The scores of the objects of a json, taken for detections."""
        init_default_scope(self.cfg.default_scope)
        masks = bool(self.dataset.pipeline[1].get('with_mask'))
        metric = dict(type='CocoMetric', ann_file=str(self.root / JSON), metric=['bbox', 'segm'] if masks else 'bbox')
        dataset, evaluator = DATASETS.build(self.dataset), Evaluator(metric)
        evaluator.dataset_meta = dataset.metainfo
        for i in range(len(dataset)):
            sample = dataset[i]['data_samples']
            sample.pred_instances = sample.gt_instances.clone()
            sample.pred_instances.bboxes = sample.gt_instances.bboxes.tensor
            sample.pred_instances.scores = sample.gt_instances.labels * 0 + 1.0
            if masks:
                sample.pred_instances.masks = sample.gt_instances.masks.to_tensor(torch.bool, 'cpu')
            evaluator.process([sample])
        return evaluator.evaluate(len(dataset))


def write(format: str, root: Path, masks: bool = False, images: int = 4) -> Data:
    """A whole data set of images of 64 px, and a config that trains on it."""
    write_data(root, images)
    register_library(SCOPES[format])
    if format == 'voc':
        root = _write_voc(root, images)
    names = ('plane', 'ship') if format == 'dota' else CLASSES
    dataset = dict(PATHS[format], data_root=str(root), metainfo=dict(classes=names, palette=[(1, 2, 3)] * 2))
    if format in ('coco', 'voc'):
        dataset['filter_cfg'] = dict(filter_empty_gt=True, min_size=32)
    dataset['pipeline'] = [dict(step) for step in PIPELINES[SCOPES[format]]]
    if masks:
        dataset['pipeline'][1]['with_mask'] = True
    head = 'decode_head' if format == 'ade20k' else 'bbox_head'
    cfg = dict(default_scope=SCOPES[format], model={head: dict(num_classes=2)})
    return Data(
        format, root.parent if format == 'voc' else root, Config(dict(cfg, train_dataloader=dict(dataset=dataset)))
    )


def _write_voc(root: Path, images: int) -> Path:
    (root / 'VOC/Annotations').mkdir(parents=True)
    (root / 'train').rename(root / 'VOC/JPEGImages')
    (root / 'VOC/list.txt').write_text(''.join(f'{i}\n' for i in range(images)))
    for i in range(images):
        (root / f'VOC/Annotations/{i}.xml').write_text(XML.format(OBJECT.format(CLASSES[i % 2])))
    return root / 'VOC'


# Ways to break a data set. Each gets the Data and changes files or the config.
Spoil = Callable[[Data], object]


def coco(change: Callable[[dict], object]) -> Spoil:
    def spoil(data: Data) -> None:
        content = json.loads((data.root / JSON).read_text())
        change(content)
        (data.root / JSON).write_text(json.dumps(content))

    return spoil


def every(**changes) -> Spoil:
    return coco(lambda content: [entry.update(changes) for entry in content['annotations']])


def first(**changes) -> Spoil:
    return coco(lambda content: content['annotations'][0].update(changes))


def without(key: str) -> Spoil:
    return coco(lambda content: [entry.pop(key) for entry in content['annotations']])


def swap_categories(content: dict) -> None:
    content['categories'].reverse()


def text_ids(content: dict) -> None:
    for name, key in (
        ('images', 'id'),
        ('annotations', 'image_id'),
        ('annotations', 'category_id'),
        ('categories', 'id'),
    ):
        for entry in content[name]:
            entry[key] = f'id {entry[key]}'


def mixed_ids(content: dict) -> None:
    content['images'][0]['id'] = content['annotations'][0]['image_id'] = 'a'


def latin(data: Data) -> None:
    path = data.root / JSON
    path.write_bytes(path.read_bytes().replace(b'disk', b'd\xefsk'))


def one_more(data: Data) -> None:
    classes('ring', 'disk', 'square')(data)
    heads(3)(data)


def all_difficult(data: Data) -> None:
    for path in entries(data):
        path.write_text(path.read_text().replace('t>0<', 't>1<'))


def recode(path: str, encoding: str) -> Spoil:
    return lambda data: (data.root / path).write_text((data.root / path).read_text(), encoding=encoding)


def text(path: str, content: str) -> Spoil:
    return lambda data: (data.root / path).write_text(content)


def replace(path: str, old: str, new: str) -> Spoil:
    return lambda data: (data.root / path).write_text((data.root / path).read_text().replace(old, new))


def classes(*names: str) -> Spoil:
    return lambda data: data.dataset.metainfo.update(classes=names)


def heads(count: int) -> Spoil:
    return lambda data: next(iter(data.cfg.model.values())).update(num_classes=count)


def image(path: str, make: Callable[[Path], object]) -> Spoil:
    return lambda data: make(data.root / path)


def turned(path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(np.full((64, 96, 3), 40, np.uint8)).save(path, exif=exif)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-60])


def maps(draw: Callable[[np.ndarray], Image.Image | np.ndarray]) -> Spoil:
    """Draw all label maps anew from an array that is 1 in an object and 0 around it."""

    def spoil(data: Data) -> None:
        for path in sorted((data.root / 'labels').iterdir()):
            drawn = draw(cv2.imread(str(path), cv2.IMREAD_UNCHANGED))
            (drawn if isinstance(drawn, Image.Image) else Image.fromarray(drawn)).save(path)

    return spoil


def entries(data: Data) -> Iterator[Path]:
    """The annotation files of a data set, one an image, or the json."""
    folder = dict(voc='VOC/Annotations', dota='labelTxt', ade20k='labels').get(data.format)
    yield from sorted((data.root / folder).iterdir()) if folder else [data.root / JSON]
