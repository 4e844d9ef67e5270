# Full fine-tuning of Swin-L with the recipe of Mona: semantic segmentation on ADE20K with UperNet.
#
# Trains the whole backbone (194,998,164 parameters), and both heads.
#
#   1 GPU:   ACCUMULATE=8 python tools/train.py configs/full_swin_ade20k_lr3e-4.py
#   8 GPUs:  tools/dist_train.sh configs/full_swin_ade20k_lr3e-4.py 8
#
# No published result with this recipe.
#
# What to know of the recipe: full_swin_ade20k.py. Not run here.
_base_ = './mona_swin_ade20k.py'

model = dict(backbone=dict(method=dict(type='Full')))
