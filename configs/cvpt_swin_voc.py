# CVPT in a frozen Swin-L: detection on Pascal VOC 07+12 with RetinaNet.
#
# Trains the prompts (180,480 parameters, 0.09 % of the backbone with them), and the neck and the head.
#
#   1 GPU:   ACCUMULATE=2 python tools/train.py configs/cvpt_swin_voc.py --amp
#   2 GPUs:  tools/dist_train.sh configs/cvpt_swin_voc.py 2 --amp
#   8 GPUs:  tools/dist_train.sh configs/cvpt_swin_voc.py 8 --amp --auto-scale-lr
#
# No published result: our extension. The authors of CVPT publish it for plain ViT alone; here it has the recipe of
# the baselines, and prompts are read from whole maps, not from windows.
#
# The recipe and what to know of it: mona_swin_voc.py. Not run here.
_base_ = './mona_swin_voc.py'

model = dict(backbone=dict(method=dict(type='CVPT')))
