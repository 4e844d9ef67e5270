# Partial-1: Swin-B with its last block trained: oriented detection on STAR with Oriented R-CNN.
#
# Trains the last block (12,601,632 parameters, 14.53 % of the backbone), and the neck and all heads.
#
#   1 GPU:   python tools/train.py configs/partial_swin_star.py
#   8 GPUs:  tools/dist_train.sh configs/partial_swin_star.py 8 --auto-scale-lr
#
# Published: not verified (mAP on STAR).
#
# The recipe and what to know of it: mona_swin_star.py. Not run here.
_base_ = './mona_swin_star.py'

model = dict(backbone=dict(method=dict(_delete_=True, type='Partial')))
