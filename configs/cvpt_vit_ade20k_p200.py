# CVPT with 200 prompts in a frozen ViT-L: semantic segmentation on ADE20K with SETR-PUP.
#
# Trains the prompts (4,915,200 parameters, 1.59 % of the backbone with them), and all heads.
#
#   1 GPU:   ACCUMULATE=8 python tools/train.py configs/cvpt_vit_ade20k_p200.py
#   8 GPUs:  tools/dist_train.sh configs/cvpt_vit_ade20k_p200.py 8
#
# Published: 45.66 mIoU, 47.92 multi-scale (the paper's figures, second-hand); full fine-tuning has 48.31 and 50.07
# there.
#
# The recipe and what to know of it: cvpt_vit_ade20k.py. Not run here.
_base_ = './cvpt_vit_ade20k.py'

model = dict(backbone=dict(method=dict(num_prompts=200)))
