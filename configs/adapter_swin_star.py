# Adapter in a frozen Swin-B: oriented detection on STAR with Oriented R-CNN.
#
# Trains the adapters (3,107,328 parameters, 3.46 % of the backbone with them), and the neck and all heads.
#
#   1 GPU:   python tools/train.py configs/adapter_swin_star.py
#   8 GPUs:  tools/dist_train.sh configs/adapter_swin_star.py 8 --auto-scale-lr
#
# Published: not verified (mAP on STAR).
#
# The recipe and what to know of it: mona_swin_star.py. Not run here.
_base_ = './mona_swin_star.py'

model = dict(
    backbone=dict(method=dict(_delete_=True, type='Adapter', init='torch', sites=['attn_branch', 'ffn_branch']))
)
