# A frozen Swin-B: instance segmentation on COCO 2017 with Cascade Mask R-CNN.
#
# Trains the neck and all heads, and no parameter of the backbone.
#
#   1 GPU:   ACCUMULATE=8 python tools/train.py configs/frozen_swin_coco.py --amp
#   8 GPUs:  tools/dist_train.sh configs/frozen_swin_coco.py 8 --amp
#
# Published: 48.0 box AP (read off the authors' plot, about +-0.1); mask AP not verified.
# Third party (V-PETL-Bench): 43.5 box AP, 38.6 mask AP.
#
# The recipe and what to know of it: mona_swin_coco.py. Not run here.
_base_ = './mona_swin_coco.py'

model = dict(backbone=dict(method=dict(type='Frozen')))
