# BitFit in a frozen Swin-B: oriented detection on DOTA-v1.0 with H2RBox-v2.
#
# Trains the biases, the tables of relative positions included (201,528 parameters, 0.23 % of the backbone), and the
# neck and the head.
#
#   1 GPU:   python tools/train.py configs/bitfit_swin_dota.py
#   8 GPUs:  tools/dist_train.sh configs/bitfit_swin_dota.py 8 --auto-scale-lr
#
# Published: not verified (mAP on DOTA-v1.0).
#
# The recipe and what to know of it: mona_swin_dota.py. Not run here.
_base_ = './mona_swin_dota.py'

model = dict(backbone=dict(method=dict(_delete_=True, type='BitFit', tables=True)))
