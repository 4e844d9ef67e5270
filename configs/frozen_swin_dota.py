# A frozen Swin-B: oriented detection on DOTA-v1.0 with H2RBox-v2.
#
# Trains the neck and the head, and no parameter of the backbone.
#
#   1 GPU:   python tools/train.py configs/frozen_swin_dota.py
#   8 GPUs:  tools/dist_train.sh configs/frozen_swin_dota.py 8 --auto-scale-lr
#
# Published: not verified (mAP on DOTA-v1.0).
#
# The recipe and what to know of it: mona_swin_dota.py. Not run here.
_base_ = './mona_swin_dota.py'

model = dict(backbone=dict(method=dict(_delete_=True, type='Frozen')))
