# CVPT in a frozen Swin-L: semantic segmentation on ADE20K with UperNet.
#
# Trains the prompts (180,480 parameters, 0.09 % of the backbone with them), and both heads.
#
#   1 GPU:   ACCUMULATE=8 python tools/train.py configs/cvpt_swin_ade20k.py
#   8 GPUs:  tools/dist_train.sh configs/cvpt_swin_ade20k.py 8
#
# No published result: our extension. The authors of CVPT publish it for plain ViT alone; here it has the recipe of
# the baselines, and prompts are read from whole maps, not from windows.
#
# The recipe, which is not that of Mona, and what to know of it: full_swin_ade20k.py. Not run here.
_base_ = './full_swin_ade20k.py'

model = dict(backbone=dict(method=dict(type='CVPT')))
