# BitFit in a frozen ViT-L: semantic segmentation on ADE20K with SETR-PUP.
#
# Trains the biases, the tables of relative positions included (271,360 parameters, 0.09 % of the backbone), and all
# heads.
#
#   1 GPU:   ACCUMULATE=8 python tools/train.py configs/bitfit_vit_ade20k.py
#   8 GPUs:  tools/dist_train.sh configs/bitfit_vit_ade20k.py 8
#
# Published: 43.40 mIoU, 45.33 multi-scale (VPT, table 3, second-hand).
#
# The recipe here is that of cvpt_vit_ade20k.py; the figure comes from another code base. Not run here.
_base_ = './cvpt_vit_ade20k.py'

model = dict(backbone=dict(method=dict(_delete_=True, type='BitFit', tables=True)))
