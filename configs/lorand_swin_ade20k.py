# LoRand in a frozen Swin-L: semantic segmentation on ADE20K with UperNet.
#
# Trains the adapters (3,543,936 parameters, 1.78 % of the backbone with them), and both heads.
#
#   1 GPU:   ACCUMULATE=8 python tools/train.py configs/lorand_swin_ade20k.py
#   8 GPUs:  tools/dist_train.sh configs/lorand_swin_ade20k.py 8
#
# Published: 50.76 mIoU (reprinted by a third party, V-PETL-Bench).
#
# The recipe, which is not that of Mona, and what to know of it: full_swin_ade20k.py. Not run here.
_base_ = './full_swin_ade20k.py'

model = dict(backbone=dict(method=dict(type='LoRand')))
