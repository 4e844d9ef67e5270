# BitFit in a frozen Swin-B: instance segmentation on COCO 2017 with Cascade Mask R-CNN.
#
# Trains the biases, the tables of relative positions included (201,656 parameters, 0.23 % of the backbone), and the
# neck and all heads.
#
#   1 GPU:   ACCUMULATE=8 python tools/train.py configs/bitfit_swin_coco.py --amp
#   8 GPUs:  tools/dist_train.sh configs/bitfit_swin_coco.py 8 --amp
#
# Published: 50.1 box AP (read off the authors' plot, about +-0.1); mask AP not verified.
# Third party (V-PETL-Bench): 47.9 box AP, 41.9 mask AP.
#
# The recipe and what to know of it: mona_swin_coco.py. Not run here.
_base_ = './mona_swin_coco.py'

model = dict(backbone=dict(method=dict(type='BitFit', tables=True)))
