# SSF in a frozen Swin-B: oriented detection on DOTA-v1.0 with H2RBox-v2.
#
# Trains the scales and shifts (268,800 parameters, 0.31 % of the backbone with them), and the neck and the head.
#
#   1 GPU:   python tools/train.py configs/ssf_swin_dota.py
#   8 GPUs:  tools/dist_train.sh configs/ssf_swin_dota.py 8 --auto-scale-lr
#
# No published result: our extension. The authors of SSF publish classification alone, with a learning rate up to 100
# times that of full fine-tuning; here it has the recipe of the baselines, so a search may pay.
#
# The recipe and what to know of it: mona_swin_dota.py. Not run here.
_base_ = './mona_swin_dota.py'

model = dict(backbone=dict(method=dict(_delete_=True, type='SSF')))
