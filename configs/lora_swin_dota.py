# LoRA in a frozen Swin-B: oriented detection on DOTA-v1.0 with H2RBox-v2.
#
# Trains the adapters of query and value (3,080,192 parameters, 3.43 % of the backbone with them), and the neck and
# the head.
#
#   1 GPU:   python tools/train.py configs/lora_swin_dota.py
#   8 GPUs:  tools/dist_train.sh configs/lora_swin_dota.py 8 --auto-scale-lr
#
# Published: not verified (mAP on DOTA-v1.0).
#
# The recipe and what to know of it: mona_swin_dota.py. Not run here.
_base_ = './mona_swin_dota.py'

model = dict(backbone=dict(method=dict(_delete_=True, type='LoRA')))
