# LoRand in a frozen Swin-B: oriented detection on DOTA-v1.0 with H2RBox-v2.
#
# Trains the adapters (2,370,816 parameters, 2.66 % of the backbone with them), and the neck and the head.
#
#   1 GPU:   python tools/train.py configs/lorand_swin_dota.py
#   8 GPUs:  tools/dist_train.sh configs/lorand_swin_dota.py 8 --auto-scale-lr
#
# Published: not verified (mAP on DOTA-v1.0).
#
# The recipe and what to know of it: mona_swin_dota.py. Not run here.
_base_ = './mona_swin_dota.py'

model = dict(backbone=dict(method=dict(_delete_=True, type='LoRand')))
