# AdaptFormer in a frozen Swin-L: detection on Pascal VOC 07+12 with RetinaNet.
#
# Trains the adapters (2,329,728 parameters, 1.18 % of the backbone with them), and the neck and the head.
#
#   1 GPU:   ACCUMULATE=2 python tools/train.py configs/adaptformer_swin_voc.py --amp
#   2 GPUs:  tools/dist_train.sh configs/adaptformer_swin_voc.py 2 --amp
#   8 GPUs:  tools/dist_train.sh configs/adaptformer_swin_voc.py 8 --amp --auto-scale-lr
#
# Published: 86.6 AP50 (the authors' log).
# Third party (V-PETL-Bench): 87.3 AP50.
#
# The recipe and what to know of it: mona_swin_voc.py. Not run here.
_base_ = './mona_swin_voc.py'

model = dict(backbone=dict(method=dict(type='AdaptFormer')))
