# NormTuning in a frozen Swin-B: instance segmentation on COCO 2017 with Cascade Mask R-CNN.
#
# Trains the norms (59,392 parameters, 0.07 % of the backbone), and the neck and all heads.
#
#   1 GPU:   ACCUMULATE=8 python tools/train.py configs/normtuning_swin_coco.py --amp
#   8 GPUs:  tools/dist_train.sh configs/normtuning_swin_coco.py 8 --amp
#
# Published: 50.1 box AP (read off the authors' plot, about +-0.1); mask AP not verified.
# Third party (V-PETL-Bench): 48.0 box AP, 41.4 mask AP.
#
# The recipe and what to know of it: mona_swin_coco.py. Not run here.
_base_ = './mona_swin_coco.py'

model = dict(backbone=dict(method=dict(type='NormTuning')))
