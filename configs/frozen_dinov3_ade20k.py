# A frozen DINOv3 ViT-B: semantic segmentation on ADE20K with a feature pyramid and UperNet.
#
# Trains the pyramid and both heads, and no parameter of the backbone.
#
#   1 GPU:   ACCUMULATE=8 python tools/train.py configs/frozen_dinov3_ade20k.py
#   8 GPUs:  tools/dist_train.sh configs/frozen_dinov3_ade20k.py 8
#
# Our extension, no published recipe: that of mona_dinov3_ade20k.py, which says what to know of it. Not run here.
_base_ = './mona_dinov3_ade20k.py'

model = dict(backbone=dict(method=dict(type='Frozen')))
