# CVPT in a frozen Swin-B: instance segmentation on COCO 2017 with Cascade Mask R-CNN.
#
# Trains the prompts (120,320 parameters, 0.14 % of the backbone with them), and the neck and all heads.
#
#   1 GPU:   ACCUMULATE=8 python tools/train.py configs/cvpt_swin_coco.py --amp
#   8 GPUs:  tools/dist_train.sh configs/cvpt_swin_coco.py 8 --amp
#
# No published result: our extension. The authors of CVPT publish it for plain ViT alone; here it has the recipe of
# the baselines, and prompts are read from whole maps, not from windows.
#
# The recipe and what to know of it: mona_swin_coco.py. Not run here.
_base_ = './mona_swin_coco.py'

model = dict(backbone=dict(method=dict(type='CVPT')))
