# Mona in a frozen Swin-L with the recipe of the baselines: semantic segmentation on ADE20K with UperNet.
#
# Trains the adapters (5,267,712 parameters, 2.63 % of the backbone with them), and both heads.
#
#   1 GPU:   ACCUMULATE=8 python tools/train.py configs/mona_swin_ade20k_lr6e-5.py
#   8 GPUs:  tools/dist_train.sh configs/mona_swin_ade20k_lr6e-5.py 8
#
# No published result with this recipe.
#
# What to know of the recipe: full_swin_ade20k.py. Not run here.
_base_ = './full_swin_ade20k.py'

model = dict(backbone=dict(method=dict(type='Mona')))
