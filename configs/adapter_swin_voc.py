# Adapter in a frozen Swin-L: detection on Pascal VOC 07+12 with RetinaNet.
#
# Trains the adapters (4,659,456 parameters, 2.33 % of the backbone with them), and the neck and the head.
#
#   1 GPU:   ACCUMULATE=2 python tools/train.py configs/adapter_swin_voc.py --amp
#   2 GPUs:  tools/dist_train.sh configs/adapter_swin_voc.py 2 --amp
#   8 GPUs:  tools/dist_train.sh configs/adapter_swin_voc.py 8 --amp --auto-scale-lr
#
# Published: 86.7 AP50 (the authors' log).
# Third party (V-PETL-Bench): 87.1 AP50.
#
# The recipe and what to know of it: mona_swin_voc.py. Not run here.
_base_ = './mona_swin_voc.py'

model = dict(backbone=dict(method=dict(type='Adapter')))
