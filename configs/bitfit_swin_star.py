# BitFit in a frozen Swin-B: oriented detection on STAR with Oriented R-CNN.
#
# Trains the biases, the tables of relative positions included (201,656 parameters, 0.23 % of the backbone), and the
# neck and all heads.
#
#   1 GPU:   python tools/train.py configs/bitfit_swin_star.py
#   8 GPUs:  tools/dist_train.sh configs/bitfit_swin_star.py 8 --auto-scale-lr
#
# Published: not verified (mAP on STAR).
#
# The recipe and what to know of it: mona_swin_star.py. Not run here.
_base_ = './mona_swin_star.py'

model = dict(backbone=dict(method=dict(_delete_=True, type='BitFit', tables=True)))
