# AdaptFormer in a frozen Swin-B: instance segmentation on COCO 2017 with Cascade Mask R-CNN.
#
# Trains the adapters (1,553,664 parameters, 1.76 % of the backbone with them), and the neck and all heads.
#
#   1 GPU:   ACCUMULATE=8 python tools/train.py configs/adaptformer_swin_coco.py --amp
#   8 GPUs:  tools/dist_train.sh configs/adaptformer_swin_coco.py 8 --amp
#
# Published: 51.7 box AP (read off the authors' plot, about +-0.1); mask AP not verified.
# Third party (V-PETL-Bench): 51.4 box AP, 44.5 mask AP.
#
# The recipe and what to know of it: mona_swin_coco.py. Not run here.
_base_ = './mona_swin_coco.py'

model = dict(backbone=dict(method=dict(type='AdaptFormer')))
