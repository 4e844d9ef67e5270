# Full fine-tuning of the micro Swin on the digits: what Mona is compared with.
#
# Trains every parameter of the backbone, the neck and the head.
#
#   python tools/train.py configs/demo/full_swin-micro_digits.py
_base_ = [
    '../_base_/models/faster-rcnn_swin-micro_fpn.py',
    '../_base_/datasets/digits.py',
    '../_base_/schedules/adamw_digits.py',
    '../_base_/default_runtime.py',
]

default_hooks = dict(checkpoint=dict(interval=-1, save_last=True), logger=dict(interval=25))
