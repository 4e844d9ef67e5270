# Full fine-tuning of Swin-B: oriented detection on DOTA-v1.0 with H2RBox-v2.
#
# Trains the whole backbone (86,744,760 parameters), and the neck and the head.
#
#   1 GPU:   python tools/train.py configs/full_swin_dota.py
#   8 GPUs:  tools/dist_train.sh configs/full_swin_dota.py 8 --auto-scale-lr
#
# Published: not verified (mAP on DOTA-v1.0).
#
# The recipe and what to know of it: mona_swin_dota.py. Not run here.
_base_ = './mona_swin_dota.py'

model = dict(backbone=dict(method=dict(_delete_=True, type='Full')))
