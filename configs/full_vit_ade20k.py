# Full fine-tuning of ViT-L: semantic segmentation on ADE20K with SETR-PUP.
#
# Trains the whole backbone (304,147,456 parameters), and all heads.
#
#   1 GPU:   ACCUMULATE=8 python tools/train.py configs/full_vit_ade20k.py
#   8 GPUs:  tools/dist_train.sh configs/full_vit_ade20k.py 8
#
# Published: 48.31 mIoU, 50.07 multi-scale (VPT, table 3, second-hand).
#
# The recipe here is that of cvpt_vit_ade20k.py; the figure comes from another code base. Not run here.
_base_ = './cvpt_vit_ade20k.py'

model = dict(backbone=dict(method=dict(_delete_=True, type='Full')))
