# SSF in a frozen DINOv3 ViT-B: instance segmentation on COCO 2017 with Mask R-CNN and a feature pyramid.
#
# Trains the scales and shifts (204,288 parameters, 0.24 % of the backbone with them), the pyramid, the FPN and all
# heads.
#
#   1 GPU:   ACCUMULATE=8 python tools/train.py configs/ssf_dinov3_coco.py --amp
#   8 GPUs:  tools/dist_train.sh configs/ssf_dinov3_coco.py 8 --amp
#
# Our extension, no published recipe: that of mona_dinov3_coco.py, which says what to know of it. Not run here.
_base_ = './mona_dinov3_coco.py'

model = dict(backbone=dict(method=dict(type='SSF')))
