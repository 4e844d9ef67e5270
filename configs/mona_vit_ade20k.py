# Mona in a frozen ViT-L: semantic segmentation on ADE20K with SETR-PUP.
#
# Trains the adapters (7,004,160 parameters, 2.25 % of the backbone with them), and all heads.
#
#   1 GPU:   ACCUMULATE=8 python tools/train.py configs/mona_vit_ade20k.py
#   8 GPUs:  tools/dist_train.sh configs/mona_vit_ade20k.py 8
#
# No published result: our extension. The recipe is that of cvpt_vit_ade20k.py, transferred.
#
# Not run here.
_base_ = './cvpt_vit_ade20k.py'

model = dict(backbone=dict(method=dict(_delete_=True, type='Mona')))
