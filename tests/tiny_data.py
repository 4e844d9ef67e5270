"""Tiny data sets on disk in the layouts of COCO, DOTA and mmseg, configs that fit them, and the tools as modules."""

import importlib.util
import json
from pathlib import Path

import cv2
import numpy as np
from tiny import forget_runs

MAIN = 'configs/mona_swin_coco.py'
CLASSES = ('disk', 'square')
TINY_SWIN = dict(embed_dims=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2], init_cfg=None)
CHANNELS = 16
WIDTHS = (
    'model.neck.out_channels',
    'model.rpn_head.in_channels',
    'model.rpn_head.feat_channels',
    'model.roi_head.bbox_roi_extractor.out_channels',
    'model.roi_head.mask_roi_extractor.out_channels',
    'model.roi_head.mask_head.in_channels',
    'model.roi_head.mask_head.conv_out_channels',
)

SEGMENTOR = """
default_scope = 'mmseg'
size = (64, 64)
backbone = dict(type='SwinTransformer', embed_dims=8, depths=(1, 1, 1, 1), num_heads=(1, 1, 2, 2))
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(type='SegDataPreProcessor', size=size, pad_val=0, seg_pad_val=255),
    backbone=dict(type='mmpeft.AdaptedBackbone', method=dict(type='Mona'), allow_random_base=True, backbone=backbone),
    decode_head=dict(
        type='FCNHead', in_channels=64, channels=8, in_index=3, num_convs=1, num_classes=2,
        norm_cfg=dict(type='BN'), loss_decode=dict(type='CrossEntropyLoss')),
    test_cfg=dict(mode='whole'))
load = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')]
dataset = dict(
    type='BaseSegDataset', data_root='{root}', data_prefix=dict(img_path='train', seg_map_path='labels'),
    metainfo=dict(classes=('ground', 'thing')), pipeline=load)
train_dataloader = dict(
    batch_size=2, num_workers=0, sampler=dict(type='InfiniteSampler'),
    dataset=dict(type='RepeatDataset', times=2, dataset=dataset))
test_dataloader = dict(batch_size=1, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False), dataset=dataset)
train_cfg = dict(type='IterBasedTrainLoop', max_iters=2)
test_cfg = dict(type='TestLoop')
test_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
optim_wrapper = dict(optimizer=dict(type='AdamW', lr=1e-4), constructor='mmpeft.AdapterOptimWrapperConstructor')
default_hooks = dict(
    checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=2),
    visualization=dict(type='SegVisualizationHook'))
visualizer = dict(type='SegLocalVisualizer', vis_backends=[dict(type='LocalVisBackend')])
tta_model = dict(type='SegTTAModel')
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='TestTimeAug', transforms=[
        [dict(type='RandomFlip', prob=0.0), dict(type='RandomFlip', prob=1.0)],
        [dict(type='LoadAnnotations')], [dict(type='PackSegInputs')]])]
"""

ROTATED = """
_base_ = 'mmrotate::rotated_retinanet/rotated-retinanet-rbox-le90_r50_fpn_1x_dota.py'
backbone = dict(type='mmdet.SwinTransformer', embed_dims=8, depths=(1, 1, 1, 1), num_heads=(1, 1, 2, 2))
model = dict(
    backbone=dict(
        _delete_=True, type='mmpeft.AdaptedBackbone', method=dict(type='Mona'), allow_random_base=True,
        backbone=backbone),
    neck=dict(in_channels=[8, 16, 32, 64], out_channels=8), bbox_head=dict(in_channels=8, feat_channels=8))
train_dataloader = dict(
    num_workers=0, persistent_workers=False,
    dataset=dict(data_root='{root}', ann_file='labelTxt', data_prefix=dict(img_path='train'), img_suffix='jpg'))
train_cfg = dict(max_epochs=1)
val_cfg = val_dataloader = val_evaluator = None
"""


def tool(name: str):
    """A tool as a module in a new process; ``tools`` is no package, and ``test`` is a module of Python's own."""
    forget_runs()
    spec = importlib.util.spec_from_file_location(f'tools_{name}', f'tools/{name}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write_data(root: Path, images: int = 4) -> Path:
    """Images of 64 x 64 with one bright square each: ``train``, COCO json, masks in ``labels``, DOTA ``labelTxt``."""
    for folder in ('train', 'labels', 'labelTxt', 'annotations'):
        (root / folder).mkdir(parents=True)
    records, annotations = [], []
    for i in range(images):
        x, y, side = 8 + 4 * i, 16, 24
        picture = np.full((64, 64, 3), 40, np.uint8)
        picture[y : y + side, x : x + side] = 220
        cv2.imwrite(str(root / f'train/{i}.jpg'), picture)
        cv2.imwrite(str(root / f'labels/{i}.png'), (picture[..., 0] == 220).astype(np.uint8))
        corners = [x, y, x + side, y, x + side, y + side, x, y + side]
        (root / f'labelTxt/{i}.txt').write_text(' '.join(map(str, corners)) + ' plane 0\n')
        records.append(dict(id=i, file_name=f'{i}.jpg', width=64, height=64))
        box = dict(bbox=[x, y, side, side], area=side**2, iscrowd=0, segmentation=[corners])
        annotations.append(dict(id=i + 1, image_id=i, category_id=1 + i % 2, **box))
    categories = [dict(id=i + 1, name=name) for i, name in enumerate(CLASSES)]
    text = json.dumps(dict(images=records, annotations=annotations, categories=categories))
    (root / 'annotations/train.json').write_text(text)
    return root


def main_options(root: Path) -> dict:
    """Keys that fit ``configs/mona_swin_coco.py`` to the tiny data and to a few seconds."""
    options = {'model.backbone.allow_random_base': True, 'train_cfg.max_epochs': 1}
    options |= {f'model.backbone.backbone.{key}': value for key, value in TINY_SWIN.items()}
    options |= {'model.neck.in_channels': [8, 16, 32, 64], 'model.roi_head.mask_head.num_classes': 2}
    options |= dict.fromkeys(WIDTHS, CHANNELS)
    for stage in range(3):
        head = f'model.roi_head.bbox_head.{stage}'
        options |= {f'{head}.{key}_channels': CHANNELS for key in ('in', 'conv_out', 'fc_out')}
        options[f'{head}.num_classes'] = 2
        options[f'model.train_cfg.rcnn.{stage}.sampler.num'] = 8
    options |= {'model.train_cfg.rpn_proposal.max_per_img': 16, 'model.test_cfg.rpn.max_per_img': 16}
    for split in ('train', 'val', 'test'):
        dataset = dict(data_root=str(root), ann_file='annotations/train.json')
        dataset |= {'data_prefix.img': 'train', 'metainfo.classes': CLASSES}
        options |= {f'{split}_dataloader.dataset.{key}': value for key, value in dataset.items()}
        options |= {f'{split}_dataloader.num_workers': 0, f'{split}_dataloader.persistent_workers': False}
    scales = 'train_dataloader.dataset.pipeline.3.transforms'
    options |= {f'{scales}.{key}.scales': [(64, 64)] for key in ('0.0', '1.0', '1.2')}
    for split in ('val', 'test'):
        options[f'{split}_dataloader.dataset.pipeline.1.scale'] = (64, 64)
        options[f'{split}_evaluator.ann_file'] = f'{root}/annotations/train.json'
    return options


def words(options: dict) -> list[str]:
    """The options as words of a command line."""
    return ['--cfg-options', *(f'{key}={str(value).replace(" ", "")}' for key, value in options.items())]
