# Mona in a frozen Swin-B: oriented detection on STAR with H2RBox-v2.
#
# Trains the adapters (3,667,456 parameters, 4.06 % of the backbone with them), and the neck and the head.
#
#   1 GPU:   python tools/train.py configs/mona_swin_star_h2rbox-v2.py
#   8 GPUs:  tools/dist_train.sh configs/mona_swin_star_h2rbox-v2.py 8 --auto-scale-lr
#
# Published: 31.34 mAP on STAR (the paper's figure, second-hand).
#
# The adapters start with torch's own values, which is how the published runs started them.
#
# Everything decays, the norms of the adapters included, as published: the optimizer is mmengine's own. The published
# framework is H2RBox-v2p of mmrotate 0.x, this is the H2RBox-v2 of mmrotate 1.x.
#
# The published files have 2 images per GPU and do not say how many GPUs. This takes 2 images as the batch, as
# mmrotate's own files do; with 8 GPUs `--auto-scale-lr` raises the learning rate. The published code is of mmrotate
# 0.x and crops large images while it tests; here patches are tested and merged. Not run here.
_base_ = [
    './_base_/models/h2rbox-v2_swin-b_fpn.py',
    './_base_/datasets/star_horizontal.py',
    './_base_/schedules/adamw_1x_rotated.py',
    'mmrotate::_base_/default_runtime.py',
]

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmpeft.AdaptedBackbone',
        method=dict(type='Mona', init='torch'),
        backbone={{_base_.model.backbone}},
    ),
    # Tanks and roundabouts are round. No class is known to be published whose sizes are not learned.
    bbox_head=dict(num_classes=48, rotation_agnostic_classes=[4, 44], agnostic_resize_classes=None),
)
