# Partial-1: Swin-L with its last block trained: detection on Pascal VOC 07+12 with RetinaNet.
#
# Trains the last block (28,339,632 parameters, 14.53 % of the backbone), and the neck and the head.
#
#   1 GPU:   ACCUMULATE=2 python tools/train.py configs/partial_swin_voc.py --amp
#   2 GPUs:  tools/dist_train.sh configs/partial_swin_voc.py 2 --amp
#   8 GPUs:  tools/dist_train.sh configs/partial_swin_voc.py 8 --amp --auto-scale-lr
#
# Published: the paper's figure is not verified.
#
# The recipe and what to know of it: mona_swin_voc.py. Not run here.
_base_ = './mona_swin_voc.py'

model = dict(backbone=dict(method=dict(type='Partial')))
