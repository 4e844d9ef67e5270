# Full fine-tuning of the ViT-B of DINOv3: semantic segmentation on ADE20K with a feature pyramid and UperNet.
#
# Trains the whole backbone (85,639,680 parameters), the pyramid and both heads.
#
#   1 GPU:   ACCUMULATE=8 python tools/train.py configs/full_dinov3_ade20k.py
#   8 GPUs:  tools/dist_train.sh configs/full_dinov3_ade20k.py 8
#
# Our extension, no published recipe: that of mona_dinov3_ade20k.py, which says what to know of it. Not run here.
_base_ = './mona_dinov3_ade20k.py'

model = dict(backbone=dict(method=dict(type='Full')))
