# Full fine-tuning of the micro Swin on ships as rotated boxes, small enough for a CPU: one of the sets of
# docs/results.md.
#
# Trains every parameter of the backbone, and the neck and the heads.
#
#   SHIPS=data/ships python tools/train.py configs/study/oriented-rcnn_swin-micro_ships.py
#   SHIPS=data/ships python tools/compare.py configs/study/oriented-rcnn_swin-micro_ships.py \
#       --methods Full Frozen Mona --lrs 1e-3 3e-3 --out work_dirs/ships
#
# Expected under SHIPS: {train,val}/images/*.png, and {train,val}/annfiles/*.txt in DOTA's format without a header, as
# `python tools/prepare_data.py split dota RAW SHIPS --size 640 --no-padding` writes them.
_base_ = 'mmrotate::oriented_rcnn/oriented-rcnn-le90_r50_fpn_1x_dota.py'

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
        drop_path_rate=0.0,
        init_cfg=dict(type='Pretrained', checkpoint='{{ fileDirname }}/../demo/swin_micro.safetensors'),
    ),
    neck=dict(in_channels=[32, 64, 128, 256], out_channels=64),
    # Ships are long: some seven times as long as wide.
    rpn_head=dict(in_channels=64, feat_channels=64, anchor_generator=dict(ratios=[0.2, 0.5, 1.0, 2.0, 5.0])),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=64), bbox_head=dict(in_channels=64, fc_out_channels=256, num_classes=1)
    ),
    train_cfg=dict(
        rpn=dict(sampler=dict(num=64), allowed_border=-1),
        rpn_proposal=dict(nms_pre=300, max_per_img=100),
        # Early proposals lie badly on what is so thin, and the head is to learn from them.
        rcnn=dict(
            assigner=dict(pos_iou_thr=0.3, neg_iou_thr=0.3, min_pos_iou=0.3), sampler=dict(num=64, pos_fraction=0.5)
        ),
    ),
    test_cfg=dict(rpn=dict(nms_pre=300, max_per_img=100), rcnn=dict(nms_pre=300, max_per_img=50)),
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
# At an IoU of 0.3 and not 0.5: of a ship, an angle that is 11 degrees wrong leaves half of it.
test_evaluator = dict(iou_thrs=0.3, eval_mode='area')
# A tenth of the training images is held out by tools/compare.py; nothing else validates.
val_dataloader = val_evaluator = val_cfg = None

iterations = 300
train_cfg = dict(_delete_=True, type='IterBasedTrainLoop', max_iters=iterations, val_interval=150)
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', lr=1e-3, weight_decay=0.05),
    clip_grad=dict(_delete_=True, max_norm=10.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.05, by_epoch=False, begin=0, end=30),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=30, end=iterations, T_max=iterations - 30, eta_min=0),
]
default_hooks = dict(
    logger=dict(interval=20, log_metric_by_epoch=False),
    checkpoint=dict(by_epoch=False, interval=-1, save_last=True),
)
log_processor = dict(by_epoch=False)
