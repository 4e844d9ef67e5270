# Full fine-tuning of Swin-B: oriented detection on STAR with Rotated RetinaNet and KLD.
#
# Trains the whole backbone (86,744,760 parameters), and the neck and the head.
#
#   1 GPU:   python tools/train.py configs/full_swin_star_kld.py
#   8 GPUs:  tools/dist_train.sh configs/full_swin_star_kld.py 8 --auto-scale-lr
#
# Published: not verified (mAP on STAR).
#
# The recipe and what to know of it: mona_swin_star_kld.py. Not run here.
_base_ = './mona_swin_star_kld.py'

model = dict(backbone=dict(method=dict(_delete_=True, type='Full')))
