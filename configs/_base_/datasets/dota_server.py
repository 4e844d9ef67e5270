# DOTA-v1.0 for the evaluation server: training on the patches of trainval, and a Task 1 zip file for the test images.
#
# The labels of the test images are the server's, so nothing is left to validate on.
# `python tools/test.py CONFIG CHECKPOINT` writes work_dirs/dota/Task1.zip for
# https://captain-whu.github.io/DOTA/evaluation.html and prints no score.
#
# Expected: patches that tools/prepare_data.py split makes, trainval/{images,annfiles} and test/images under data_root.
_base_ = './dota_train-val.py'

test_pipeline = [
    dict(type='mmdet.LoadImageFromFile'),
    dict(type='mmdet.Resize', scale=(1024, 1024), keep_ratio=True),
    dict(type='mmdet.PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]

train_dataloader = dict(dataset=dict(ann_file='trainval/annfiles/', data_prefix=dict(img_path='trainval/images/')))
val_dataloader = None
test_dataloader = dict(
    dataset=dict(ann_file='', data_prefix=dict(img_path='test/images/'), pipeline=test_pipeline),
)

val_cfg = None
val_evaluator = None
test_evaluator = dict(
    _delete_=True, type='mmpeft.MergedDOTAMetric', format_only=True, outfile_prefix='work_dirs/dota/Task1'
)
