# STAR, 48 classes: training on the patches of train, testing on val, merged to whole images.
#
# `star/mAP` is that of whole images. Compare it with published numbers of the same split only.
#
# Expected: patches that tools/prepare_data.py split makes, in {train,val}/{images,annfiles} under data_root, and
# the label files of the whole images of val in val_evaluator.ann_dir. For another split, such as test, override
# test_dataloader.dataset.ann_file, test_dataloader.dataset.data_prefix.img_path and test_evaluator.ann_dir.
_base_ = './dota_train-val.py'

dataset_type = 'mmpeft.STARDataset'
data_root = 'data/split_ss_star/'

train_dataloader = dict(dataset=dict(type=dataset_type, data_root=data_root))
val_dataloader = dict(dataset=dict(type=dataset_type, data_root=data_root))
test_dataloader = val_dataloader

val_evaluator = dict(type='mmpeft.MergedDOTAMetric', ann_dir='data/STAR/val/labelTxt/', prefix='star')
test_evaluator = val_evaluator
