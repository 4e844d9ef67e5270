# DOTA-v1.0 for work at home: training on the patches of train, testing on val, merged to whole images.
#
# mmrotate's own dota.py trains and tests on the patches of trainval. Here `dota/mAP` is that of whole images that
# training has not seen. It is not the server's: for that one, train on trainval with dota_server.py.
#
# Expected: patches that tools/prepare_data.py split makes, in {train,val}/{images,annfiles} under
# data_root, and the label files of the whole images of val in label_dir. To use other folders, set the keys of the
# datasets and of the evaluators: `--cfg-options train_dataloader.dataset.data_root=... val_evaluator.ann_dir=...`.
_base_ = './loaders.py'

dataset_type = 'DOTADataset'
data_root = 'data/split_ss_dota/'
label_dir = 'data/DOTA/val/labelTxt/'

train_pipeline = [
    dict(type='mmdet.LoadImageFromFile'),
    dict(type='mmdet.LoadAnnotations', with_bbox=True, box_type='qbox'),
    dict(type='ConvertBoxType', box_type_mapping=dict(gt_bboxes='rbox')),
    dict(type='mmdet.Resize', scale=(1024, 1024), keep_ratio=True),
    dict(type='mmdet.RandomFlip', prob=0.75, direction=['horizontal', 'vertical', 'diagonal']),
    dict(type='mmdet.PackDetInputs'),
]
test_pipeline = [
    dict(type='mmdet.LoadImageFromFile'),
    dict(type='mmdet.Resize', scale=(1024, 1024), keep_ratio=True),
    dict(type='mmdet.LoadAnnotations', with_bbox=True, box_type='qbox'),  # after Resize, which would scale the boxes
    dict(type='ConvertBoxType', box_type_mapping=dict(gt_bboxes='rbox')),
    dict(type='mmdet.PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]

train_dataloader = dict(
    batch_size=2,
    batch_sampler=None,
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file='train/annfiles/',
        data_prefix=dict(img_path='train/images/'),
        filter_cfg=dict(filter_empty_gt=True),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file='val/annfiles/',
        data_prefix=dict(img_path='val/images/'),
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader

val_cfg = dict(type='ValLoop')
val_evaluator = dict(type='mmpeft.MergedDOTAMetric', ann_dir=label_dir)
test_evaluator = val_evaluator
