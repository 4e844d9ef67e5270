# A frozen Swin-B: oriented detection on STAR with Oriented R-CNN.
#
# Trains the neck and all heads, and no parameter of the backbone.
#
#   1 GPU:   python tools/train.py configs/frozen_swin_star.py
#   8 GPUs:  tools/dist_train.sh configs/frozen_swin_star.py 8 --auto-scale-lr
#
# Published: not verified (mAP on STAR).
#
# The recipe and what to know of it: mona_swin_star.py. Not run here.
_base_ = './mona_swin_star.py'

model = dict(backbone=dict(method=dict(_delete_=True, type='Frozen')))
