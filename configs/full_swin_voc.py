# Full fine-tuning of Swin-L: detection on Pascal VOC 07+12 with RetinaNet.
#
# Trains the backbone without its patch embedding (194,987,988 parameters, 99.99 % of the backbone), and the neck and
# the head.
#
#   1 GPU:   ACCUMULATE=2 python tools/train.py configs/full_swin_voc.py --amp
#   2 GPUs:  tools/dist_train.sh configs/full_swin_voc.py 2 --amp
#   8 GPUs:  tools/dist_train.sh configs/full_swin_voc.py 8 --amp --auto-scale-lr
#
# Published: 83.7 AP50 (the paper's figure, second-hand).
# Third party (V-PETL-Bench): 83.5 AP50.
#
# The patch embedding stays frozen, as in the published run: its frozen_stages=1 means that, where in mmdetection it
# would freeze the first stage too.
#
# The recipe and what to know of it: mona_swin_voc.py. Not run here.
_base_ = './mona_swin_voc.py'

model = dict(backbone=dict(method=dict(type='Full', blocks='^(?!patch_embed)')))
