# CVPT in a frozen Swin-B: oriented detection on DOTA-v1.0 with H2RBox-v2.
#
# Trains the prompts (120,320 parameters, 0.14 % of the backbone with them), and the neck and the head.
#
#   1 GPU:   python tools/train.py configs/cvpt_swin_dota.py
#   8 GPUs:  tools/dist_train.sh configs/cvpt_swin_dota.py 8 --auto-scale-lr
#
# No published result: our extension. The authors of CVPT publish it for plain ViT alone; here it has the recipe of
# the baselines, and prompts are read from whole maps, not from windows.
#
# The recipe and what to know of it: mona_swin_dota.py. Not run here.
_base_ = './mona_swin_dota.py'

model = dict(backbone=dict(method=dict(_delete_=True, type='CVPT')))
