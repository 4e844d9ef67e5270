# AdaptFormer in a frozen Swin-B: oriented detection on DOTA-v1.0 with H2RBox-v2.
#
# Trains the adapters (1,553,664 parameters, 1.76 % of the backbone with them), and the neck and the head.
#
#   1 GPU:   python tools/train.py configs/adaptformer_swin_dota.py
#   8 GPUs:  tools/dist_train.sh configs/adaptformer_swin_dota.py 8 --auto-scale-lr
#
# Recipe transferred, no published config.
#
# The recipe and what to know of it: mona_swin_dota.py. Not run here.
_base_ = './mona_swin_dota.py'

model = dict(backbone=dict(method=dict(_delete_=True, type='AdaptFormer', init='torch')))
