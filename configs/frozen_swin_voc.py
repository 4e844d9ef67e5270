# A frozen Swin-L: detection on Pascal VOC 07+12 with RetinaNet.
#
# Trains the neck and the head, and no parameter of the backbone.
#
#   1 GPU:   ACCUMULATE=2 python tools/train.py configs/frozen_swin_voc.py --amp
#   2 GPUs:  tools/dist_train.sh configs/frozen_swin_voc.py 2 --amp
#   8 GPUs:  tools/dist_train.sh configs/frozen_swin_voc.py 8 --amp --auto-scale-lr
#
# Published: the paper's figure is not verified.
# Third party (V-PETL-Bench): 83.6 AP50.
#
# The recipe and what to know of it: mona_swin_voc.py. Not run here.
_base_ = './mona_swin_voc.py'

model = dict(backbone=dict(method=dict(type='Frozen')))
