# A frozen ViT-L: semantic segmentation on ADE20K with SETR-PUP.
#
# Trains all heads, and no parameter of the backbone.
#
#   1 GPU:   ACCUMULATE=8 python tools/train.py configs/frozen_vit_ade20k.py
#   8 GPUs:  tools/dist_train.sh configs/frozen_vit_ade20k.py 8
#
# Published: 35.12 mIoU, 37.46 multi-scale (VPT, table 3, second-hand).
#
# The recipe here is that of cvpt_vit_ade20k.py; the figure comes from another code base. Not run here.
_base_ = './cvpt_vit_ade20k.py'

model = dict(backbone=dict(method=dict(_delete_=True, type='Frozen')))
