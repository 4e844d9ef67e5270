# SSF in a frozen Swin-L: semantic segmentation on ADE20K with UperNet.
#
# Trains the scales and shifts (403,584 parameters, 0.21 % of the backbone with them), and both heads.
#
#   1 GPU:   ACCUMULATE=8 python tools/train.py configs/ssf_swin_ade20k.py
#   8 GPUs:  tools/dist_train.sh configs/ssf_swin_ade20k.py 8
#
# No published result: our extension. The authors of SSF publish classification alone, with a learning rate up to 100
# times that of full fine-tuning; here it has the recipe of the baselines, so a search may pay.
#
# The recipe, which is not that of Mona, and what to know of it: full_swin_ade20k.py. Not run here.
_base_ = './full_swin_ade20k.py'

model = dict(backbone=dict(method=dict(type='SSF')))
