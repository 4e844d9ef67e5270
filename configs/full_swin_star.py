# Full fine-tuning of Swin-B: oriented detection on STAR with Oriented R-CNN.
#
# Trains the whole backbone (86,745,016 parameters), and the neck and all heads.
#
#   1 GPU:   python tools/train.py configs/full_swin_star.py
#   8 GPUs:  tools/dist_train.sh configs/full_swin_star.py 8 --auto-scale-lr
#
# Published: 38.63 mAP on STAR (the paper's figure, second-hand).
#
# The recipe and what to know of it: mona_swin_star.py. Not run here.
_base_ = './mona_swin_star.py'

model = dict(backbone=dict(method=dict(_delete_=True, type='Full')))
