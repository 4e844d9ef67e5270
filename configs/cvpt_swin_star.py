# CVPT in a frozen Swin-B: oriented detection on STAR with Oriented R-CNN.
#
# Trains the prompts (120,320 parameters, 0.14 % of the backbone with them), and the neck and all heads.
#
#   1 GPU:   python tools/train.py configs/cvpt_swin_star.py
#   8 GPUs:  tools/dist_train.sh configs/cvpt_swin_star.py 8 --auto-scale-lr
#
# No published result: our extension. The authors of CVPT publish it for plain ViT alone; here it has the recipe of
# the baselines, and prompts are read from whole maps, not from windows.
#
# The recipe and what to know of it: mona_swin_star.py. Not run here.
_base_ = './mona_swin_star.py'

model = dict(backbone=dict(method=dict(_delete_=True, type='CVPT')))
