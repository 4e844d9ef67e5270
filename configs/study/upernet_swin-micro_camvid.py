# Full fine-tuning of the micro Swin on CamVid, small enough for a CPU: what docs/results.md compares methods on.
#
# Trains every parameter of the backbone, and the head.
#
#   CAMVID=data/camvid python tools/train.py configs/study/upernet_swin-micro_camvid.py
#   CAMVID=data/camvid python tools/compare.py configs/study/upernet_swin-micro_camvid.py --methods Full Frozen Mona \
#       --lrs 1e-3 3e-3 --out work_dirs/camvid
#
# Expected under CAMVID: images/{training,validation,test}/*.jpg and annotations/{training,validation,test}/*.png, with
# the labels 0 to 10 and 11 for void.
_base_ = '../_base_/segmentation_runtime.py'

data_root = '{{$CAMVID:data/camvid}}'
classes = ('sky', 'building', 'pole', 'road', 'pavement', 'tree', 'sign', 'fence', 'car', 'pedestrian', 'bicyclist')
void = 11
crop = (160, 160)
scale = (240, 180)

model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor',
        size=crop,
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=void,
    ),
    backbone=dict(
        type='SwinTransformer',
        embed_dims=32,
        depths=[2, 2, 6, 2],
        num_heads=[1, 2, 4, 8],
        window_size=7,
        drop_path_rate=0.0,
        init_cfg=dict(type='Pretrained', checkpoint='{{ fileDirname }}/../demo/swin_micro.safetensors'),
    ),
    decode_head=dict(
        type='UPerHead',
        in_channels=[32, 64, 128, 256],
        in_index=[0, 1, 2, 3],
        pool_scales=(1, 2, 3, 6),
        channels=32,
        dropout_ratio=0.1,
        num_classes=11,
        norm_cfg=dict(type='BN', requires_grad=True),
        align_corners=False,
        ignore_index=void,
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0),
    ),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='RandomResize', scale=scale, ratio_range=(0.8, 1.6), keep_ratio=True),
    dict(type='RandomCrop', crop_size=crop, cat_max_ratio=0.75, ignore_index=void),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=scale, keep_ratio=True),
    dict(type='LoadAnnotations'),  # after Resize: the labels keep their size
    dict(type='PackSegInputs'),
]
dataset = dict(
    type='BaseSegDataset',
    data_root=data_root,
    metainfo=dict(classes=classes),
    img_suffix='.jpg',
    seg_map_suffix='.png',
    ignore_index=void,
)

train_dataloader = dict(
    batch_size=4,
    num_workers=0,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        dataset,
        data_prefix=dict(img_path='images/training', seg_map_path='annotations/training'),
        pipeline=train_pipeline,
    ),
)
test_dataloader = dict(
    batch_size=1,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        dataset,
        data_prefix=dict(img_path='images/test', seg_map_path='annotations/test'),
        indices=[*range(0, 233, 2)],  # every second frame
        pipeline=test_pipeline,
    ),
)
test_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'], ignore_index=void)
# Every third of the published validation frames, which come from a sequence of the training data, chooses the rate.
heldout = dict(
    data_prefix=dict(img_path='images/validation', seg_map_path='annotations/validation'),
    indices=[*range(0, 101, 3)],
)

iterations = 200
train_cfg = dict(type='IterBasedTrainLoop', max_iters=iterations, val_interval=50)
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.05, by_epoch=False, begin=0, end=10),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=10, end=iterations, T_max=iterations - 10, eta_min=0),
]
default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=10, log_metric_by_epoch=False),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=-1, save_last=True),
    sampler_seed=dict(type='DistSamplerSeedHook'),
)
randomness = dict(seed=0)
