# Full fine-tuning of Swin-B: oriented detection on DOTA-v1.0 with Rotated RetinaNet and KLD.
#
# Trains the whole backbone (86,744,760 parameters), and the neck and the head.
#
#   1 GPU:   python tools/train.py configs/full_swin_dota_kld.py
#   8 GPUs:  tools/dist_train.sh configs/full_swin_dota_kld.py 8 --auto-scale-lr
#
# Recipe transferred, no published config.
#
# The recipe and what to know of it: mona_swin_dota_kld.py. Not run here.
_base_ = './mona_swin_dota_kld.py'

model = dict(backbone=dict(method=dict(_delete_=True, type='Full')))
