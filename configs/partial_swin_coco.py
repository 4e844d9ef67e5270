# Partial-1: Swin-B with its last block trained: instance segmentation on COCO 2017 with Cascade Mask R-CNN.
#
# Trains the last block (12,601,632 parameters, 14.53 % of the backbone), and the neck and all heads.
#
#   1 GPU:   ACCUMULATE=8 python tools/train.py configs/partial_swin_coco.py --amp
#   8 GPUs:  tools/dist_train.sh configs/partial_swin_coco.py 8 --amp
#
# Published: 50.6 box AP (read off the authors' plot, about +-0.1); mask AP not verified.
# Third party (V-PETL-Bench): 49.2 box AP, 42.8 mask AP.
#
# The recipe and what to know of it: mona_swin_coco.py. Not run here.
_base_ = './mona_swin_coco.py'

model = dict(backbone=dict(method=dict(type='Partial')))
