# Full fine-tuning of the micro Swin on ships as rotated boxes, small enough for a CPU: one of the sets of
# docs/results.md.
#
# Trains every parameter of the backbone, and the neck and the head.
#
#   SHIPS=data/ships python tools/train.py configs/study/rotated-retinanet_swin-micro_ships.py
#   SHIPS=data/ships python tools/compare.py configs/study/rotated-retinanet_swin-micro_ships.py \
#       --methods Full Frozen Mona --lrs 1e-3 3e-3 --out work_dirs/ships
#
# Expected under SHIPS: {train,val}/images/*.png, and {train,val}/annfiles/*.txt in DOTA's format without a header, as
# `python tools/prepare_data.py split dota RAW SHIPS --size 640 --no-padding` writes them.
_base_ = 'mmrotate::rotated_retinanet/rotated-retinanet-rbox-le90_r50_fpn_1x_dota.py'

data_root = '{{$SHIPS:data/ships}}'
info = dict(classes=('ship',))
scale = (320, 320)

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmdet.SwinTransformer',
        embed_dims=32,
        depths=[2, 2, 6, 2],
        num_heads=[1, 2, 4, 8],
        window_size=7,
        out_indices=(1, 2, 3),
        drop_path_rate=0.0,
        init_cfg=dict(type='Pretrained', checkpoint='{{ fileDirname }}/../demo/swin_micro.safetensors'),
    ),
    neck=dict(in_channels=[64, 128, 256], start_level=0, out_channels=64),
    bbox_head=dict(num_classes=1, in_channels=64, feat_channels=64, stacked_convs=2),
)

train_pipeline = [
    dict(type='mmdet.LoadImageFromFile'),
    dict(type='mmdet.LoadAnnotations', with_bbox=True, box_type='qbox'),
    dict(type='ConvertBoxType', box_type_mapping=dict(gt_bboxes='rbox')),
    dict(type='mmdet.Resize', scale=scale, keep_ratio=True),
    dict(type='mmdet.RandomFlip', prob=0.75, direction=['horizontal', 'vertical', 'diagonal']),
    dict(type='mmdet.PackDetInputs'),
]
test_pipeline = [
    dict(type='mmdet.LoadImageFromFile'),
    dict(type='mmdet.Resize', scale=scale, keep_ratio=True),
    dict(type='mmdet.LoadAnnotations', with_bbox=True, box_type='qbox'),
    dict(type='ConvertBoxType', box_type_mapping=dict(gt_bboxes='rbox')),
    dict(type='mmdet.PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
dataset = dict(_delete_=True, type='DOTADataset', data_root=data_root, metainfo=info, img_suffix='png')
train_dataloader = dict(
    batch_size=2,
    num_workers=0,
    persistent_workers=False,
    sampler=dict(_delete_=True, type='InfiniteSampler', shuffle=True),
    dataset=dict(
        dataset,
        ann_file='train/annfiles',
        data_prefix=dict(img_path='train/images'),
        filter_cfg=dict(filter_empty_gt=True),
        pipeline=train_pipeline,
    ),
)
test_dataloader = dict(
    num_workers=0,
    persistent_workers=False,
    dataset=dict(
        dataset,
        ann_file='val/annfiles',
        data_prefix=dict(img_path='val/images'),
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
# A tenth of the training images is held out by tools/compare.py; nothing else validates.
val_dataloader = val_evaluator = val_cfg = None

iterations = 150
train_cfg = dict(_delete_=True, type='IterBasedTrainLoop', max_iters=iterations, val_interval=75)
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', lr=1e-3, weight_decay=0.05),
    clip_grad=dict(_delete_=True, max_norm=10.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.05, by_epoch=False, begin=0, end=15),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=15, end=iterations, T_max=iterations - 15, eta_min=0),
]
default_hooks = dict(
    logger=dict(interval=20, log_metric_by_epoch=False),
    checkpoint=dict(by_epoch=False, interval=-1, save_last=True),
)
log_processor = dict(by_epoch=False)
