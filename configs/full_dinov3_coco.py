# Full fine-tuning of the ViT-B of DINOv3: instance segmentation on COCO 2017 with Mask R-CNN and a feature pyramid.
#
# Trains the whole backbone (85,639,680 parameters), the pyramid, the FPN and all heads.
#
#   1 GPU:   ACCUMULATE=8 python tools/train.py configs/full_dinov3_coco.py --amp
#   8 GPUs:  tools/dist_train.sh configs/full_dinov3_coco.py 8 --amp
#
# Our extension, no published recipe: that of mona_dinov3_coco.py, which says what to know of it. Not run here.
_base_ = './mona_dinov3_coco.py'

model = dict(backbone=dict(method=dict(type='Full')))
