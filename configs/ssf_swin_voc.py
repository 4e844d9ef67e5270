# SSF in a frozen Swin-L: detection on Pascal VOC 07+12 with RetinaNet.
#
# Trains the scales and shifts (403,200 parameters, 0.21 % of the backbone with them), and the neck and the head.
#
#   1 GPU:   ACCUMULATE=2 python tools/train.py configs/ssf_swin_voc.py --amp
#   2 GPUs:  tools/dist_train.sh configs/ssf_swin_voc.py 2 --amp
#   8 GPUs:  tools/dist_train.sh configs/ssf_swin_voc.py 8 --amp --auto-scale-lr
#
# No published result: our extension. The authors of SSF publish classification alone, with a learning rate up to 100
# times that of full fine-tuning; here it has the recipe of the baselines, so a search may pay.
#
# The recipe and what to know of it: mona_swin_voc.py. Not run here.
_base_ = './mona_swin_voc.py'

model = dict(backbone=dict(method=dict(type='SSF')))
