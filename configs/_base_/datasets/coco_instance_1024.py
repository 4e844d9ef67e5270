# COCO 2017 with masks at 1024 px squared, for backbones with one grid of positions: images scaled by 0.1 to 2 and then
# cropped or padded for training, as ViTDet does, and padded for testing.
_base_ = './coco_instance_ms-crop.py'

size = (1024, 1024)
pad = dict(type='Pad', size=size, pad_val=dict(img=(114, 114, 114)))

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='RandomResize', scale=size, ratio_range=(0.1, 2.0), keep_ratio=True),
    dict(type='RandomCrop', crop_type='absolute', crop_size=size, recompute_bbox=True, allow_negative_crop=True),
    dict(type='FilterAnnotations', min_gt_bbox_wh=(1e-2, 1e-2)),
    pad,
    dict(type='PackDetInputs'),
]
test_pipeline = [
    *_base_.test_pipeline[:1],
    dict(type='Resize', scale=size, keep_ratio=True),
    pad,
    *_base_.test_pipeline[2:],
]

train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
