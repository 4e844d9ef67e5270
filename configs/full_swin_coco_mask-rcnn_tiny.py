# Full fine-tuning of Swin-T: instance segmentation on COCO 2017 with Mask R-CNN, for small cards.
#
# Trains the whole backbone (27,520,698 parameters), and the neck and all heads.
#
#   1 GPU:   ACCUMULATE=8 python tools/train.py configs/full_swin_coco_mask-rcnn_tiny.py --amp
#   8 GPUs:  tools/dist_train.sh configs/full_swin_coco_mask-rcnn_tiny.py 8 --amp
#
# No published result. The recipe is that of mona_swin_coco.py, transferred.
#
# What to know of the recipe: mona_swin_coco.py. Not run here.
_base_ = './mona_swin_coco_mask-rcnn_tiny.py'

model = dict(backbone=dict(method=dict(type='Full')))
