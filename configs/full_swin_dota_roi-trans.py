# Full fine-tuning of Swin-B: oriented detection on DOTA-v1.0 with RoI Transformer.
#
# Trains the whole backbone (86,745,016 parameters), and the neck and all heads.
#
#   1 GPU:   python tools/train.py configs/full_swin_dota_roi-trans.py
#   8 GPUs:  tools/dist_train.sh configs/full_swin_dota_roi-trans.py 8 --auto-scale-lr
#
# Recipe transferred, no published config.
#
# The recipe and what to know of it: mona_swin_dota_roi-trans.py. Not run here.
_base_ = './mona_swin_dota_roi-trans.py'

model = dict(backbone=dict(method=dict(_delete_=True, type='Full')))
