# Partial-1: Swin-L with its last block trained: semantic segmentation on ADE20K with UperNet.
#
# Trains the last block (28,339,632 parameters, 14.53 % of the backbone), and both heads.
#
#   1 GPU:   ACCUMULATE=8 python tools/train.py configs/partial_swin_ade20k.py
#   8 GPUs:  tools/dist_train.sh configs/partial_swin_ade20k.py 8
#
# Published: 47.44 mIoU (reprinted by a third party, V-PETL-Bench).
#
# The published file has plain BN in the heads, and its README asks for SyncBN, which this one has. The recipe is not
# that of Mona; what to know of it: full_swin_ade20k.py. Not run here.
_base_ = './full_swin_ade20k.py'

model = dict(backbone=dict(method=dict(type='Partial')))
