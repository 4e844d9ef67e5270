# VPT-Deep in a frozen ViT-L: semantic segmentation on ADE20K with SETR-PUP.
#
# Trains the prompts (245,760 parameters, 0.08 % of the backbone with them), and all heads.
#
#   1 GPU:   ACCUMULATE=8 python tools/train.py configs/vpt_vit_ade20k.py
#   8 GPUs:  tools/dist_train.sh configs/vpt_vit_ade20k.py 8
#
# Published: 42.11 mIoU, 44.06 multi-scale (VPT, table 3, second-hand).
#
# The recipe here is that of cvpt_vit_ade20k.py; the figure comes from another code base. Not run here.
_base_ = './cvpt_vit_ade20k.py'

model = dict(backbone=dict(method=dict(_delete_=True, type='VPT', deep=True)))
