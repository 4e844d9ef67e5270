# A frozen Swin-L: semantic segmentation on ADE20K with UperNet.
#
# Trains both heads, and no parameter of the backbone.
#
#   1 GPU:   ACCUMULATE=8 python tools/train.py configs/frozen_swin_ade20k.py
#   8 GPUs:  tools/dist_train.sh configs/frozen_swin_ade20k.py 8
#
# Published: 46.84 mIoU (reprinted by a third party, V-PETL-Bench).
#
# The recipe, which is not that of Mona, and what to know of it: full_swin_ade20k.py. Not run here.
_base_ = './full_swin_ade20k.py'

model = dict(backbone=dict(method=dict(type='Frozen')))
