# Partial-1: Swin-B with its last block trained: oriented detection on DOTA-v1.0 with H2RBox-v2.
#
# Trains the last block (12,601,632 parameters, 14.53 % of the backbone), and the neck and the head.
#
#   1 GPU:   python tools/train.py configs/partial_swin_dota.py
#   8 GPUs:  tools/dist_train.sh configs/partial_swin_dota.py 8 --auto-scale-lr
#
# Recipe transferred, no published config.
#
# The recipe and what to know of it: mona_swin_dota.py. Not run here.
_base_ = './mona_swin_dota.py'

model = dict(backbone=dict(method=dict(_delete_=True, type='Partial')))
