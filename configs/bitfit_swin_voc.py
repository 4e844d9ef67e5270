# BitFit in a frozen Swin-L: detection on Pascal VOC 07+12 with RetinaNet.
#
# Trains the biases, the tables of relative positions included (301,908 parameters, 0.15 % of the backbone), and the
# neck and the head.
#
#   1 GPU:   ACCUMULATE=2 python tools/train.py configs/bitfit_swin_voc.py --amp
#   2 GPUs:  tools/dist_train.sh configs/bitfit_swin_voc.py 2 --amp
#   8 GPUs:  tools/dist_train.sh configs/bitfit_swin_voc.py 8 --amp --auto-scale-lr
#
# Published: the paper's figure is not verified.
#
# The patch embedding stays frozen, as in the published run: its frozen_stages=1 means that, where in mmdetection it
# would freeze the first stage too.
#
# The recipe and what to know of it: mona_swin_voc.py. Not run here.
_base_ = './mona_swin_voc.py'

model = dict(backbone=dict(method=dict(type='BitFit', tables=True, blocks='^(?!patch_embed)')))
