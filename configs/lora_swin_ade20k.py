# LoRA in a frozen Swin-L: semantic segmentation on ADE20K with UperNet.
#
# Trains the adapters of query and value (4,620,288 parameters, 2.31 % of the backbone with them), and both heads.
#
#   1 GPU:   ACCUMULATE=8 python tools/train.py configs/lora_swin_ade20k.py
#   8 GPUs:  tools/dist_train.sh configs/lora_swin_ade20k.py 8
#
# Published: 50.34 mIoU (reprinted by a third party, V-PETL-Bench).
#
# The published file has plain BN in the heads, and its README asks for SyncBN, which this one has. The recipe is not
# that of Mona; what to know of it: full_swin_ade20k.py. Not run here.
_base_ = './full_swin_ade20k.py'

model = dict(backbone=dict(method=dict(type='LoRA')))
