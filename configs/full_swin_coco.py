# Full fine-tuning of Swin-B: instance segmentation on COCO 2017 with Cascade Mask R-CNN.
#
# Trains the whole backbone (86,745,016 parameters), and the neck and all heads.
#
#   1 GPU:   ACCUMULATE=8 python tools/train.py configs/full_swin_coco.py --amp
#   8 GPUs:  tools/dist_train.sh configs/full_swin_coco.py 8 --amp
#
# Published: 52.4 box AP (printed in the authors' plot), 45.1 mask AP (from the paper's margin, second-hand).
# Third party (V-PETL-Bench): 51.9 box AP, 45.0 mask AP.
#
# The recipe and what to know of it: mona_swin_coco.py. Not run here.
_base_ = './mona_swin_coco.py'

model = dict(backbone=dict(method=dict(type='Full')))
