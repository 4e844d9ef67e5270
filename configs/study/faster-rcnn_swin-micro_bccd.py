# Full fine-tuning of the micro Swin on BCCD, small enough for a CPU: what docs/results.md compares methods on.
#
#   BCCD=data/bccd python tools/compare.py configs/study/faster-rcnn_swin-micro_bccd.py --methods Full Frozen Mona \
#       --lrs 1e-3 3e-3 --out work_dirs/bccd
#
# Expected under BCCD: JPEGImages/ and the boxes in COCO's format, coco/trainval.json and coco/test.json.
_base_ = [
    '../_base_/models/faster-rcnn_swin-micro_fpn.py',
    '../_base_/datasets/digits.py',
    '../_base_/schedules/adamw_digits.py',
    '../_base_/default_runtime.py',
]

data_root = '{{$BCCD:data/bccd}}'
classes = ('RBC', 'WBC', 'Platelets')
scale = (320, 240)

model = dict(roi_head=dict(bbox_head=dict(num_classes=3)))

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Resize', scale=scale, keep_ratio=True),
    dict(type='RandomFlip', prob=0.75, direction=['horizontal', 'vertical', 'diagonal']),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=scale, keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
dataset = dict(
    _delete_=True,
    type='CocoDataset',
    data_root=data_root,
    metainfo=dict(classes=classes),
    data_prefix=dict(img='JPEGImages/'),
)
train_dataloader = dict(
    batch_size=2,
    sampler=dict(_delete_=True, type='InfiniteSampler', shuffle=True),
    dataset=dict(dataset, ann_file='coco/trainval.json', pipeline=train_pipeline),
)
test_dataloader = dict(
    batch_size=1,
    dataset=dict(dataset, ann_file='coco/test.json', test_mode=True, pipeline=test_pipeline),
)
# A tenth of the training images is held out by tools/compare.py; nothing else validates.
val_dataloader = val_evaluator = val_cfg = None
test_evaluator = dict(ann_file=f'{data_root}/coco/test.json')

iterations = 150
train_cfg = dict(_delete_=True, type='IterBasedTrainLoop', max_iters=iterations, val_interval=75)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.05, by_epoch=False, begin=0, end=15),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=15, end=iterations, T_max=iterations - 15, eta_min=0),
]
default_hooks = dict(
    logger=dict(interval=20, log_metric_by_epoch=False),
    checkpoint=dict(by_epoch=False, interval=-1, save_last=True, max_keep_ckpts=1),
)
log_processor = dict(by_epoch=False)
