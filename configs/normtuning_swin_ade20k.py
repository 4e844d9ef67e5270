# NormTuning in a frozen Swin-L: semantic segmentation on ADE20K with UperNet.
#
# Trains the norms (89,088 parameters, 0.05 % of the backbone), and both heads.
#
#   1 GPU:   ACCUMULATE=8 python tools/train.py configs/normtuning_swin_ade20k.py
#   8 GPUs:  tools/dist_train.sh configs/normtuning_swin_ade20k.py 8
#
# Published: 47.98 mIoU (as printed by a third party, V-PETL-Bench; the paper's own figure is not verified).
#
# The published file has plain BN in the heads, and its README asks for SyncBN, which this one has. The recipe is not
# that of Mona; what to know of it: full_swin_ade20k.py. Not run here.
_base_ = './full_swin_ade20k.py'

model = dict(backbone=dict(method=dict(type='NormTuning')))
