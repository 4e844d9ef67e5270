# STAR, 48 classes: training on the patches of train, testing on val, merged to whole images.
#
# `star/mAP` is that of whole images. Compare it with published numbers of the same split only.
#
# STAR_SPLIT=test before `python tools/test.py CONFIG CHECKPOINT` tests on test, or any other split with labels.
#
# Expected: patches that tools/prepare_data.py split makes, in {train,val}/{images,annfiles} under data_root, and
# the label files of the whole images of val in val_evaluator.ann_dir; the same of the split that is tested.
_base_ = './dota_train-val.py'

dataset_type = 'mmpeft.STARDataset'
data_root = 'data/split_ss_star/'
split = '{{$STAR_SPLIT:val}}'

train_dataloader = dict(dataset=dict(type=dataset_type, data_root=data_root))
val_dataloader = dict(dataset=dict(type=dataset_type, data_root=data_root))
test_dataloader = dict(
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file=f'{split}/annfiles/',
        data_prefix=dict(img_path=f'{split}/images/'),
    )
)

val_evaluator = dict(type='mmpeft.MergedDOTAMetric', ann_dir='data/STAR/val/labelTxt/', prefix='star')
test_evaluator = dict(val_evaluator, ann_dir=f'data/STAR/{split}/labelTxt/')
