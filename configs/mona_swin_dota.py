# Mona in a frozen Swin-B: oriented detection on DOTA-v1.0 with H2RBox-v2.
#
# Trains the adapters (3,667,456 parameters, 4.06 % of the backbone with them), and the neck and the head.
#
#   1 GPU:   python tools/train.py configs/mona_swin_dota.py
#   8 GPUs:  tools/dist_train.sh configs/mona_swin_dota.py 8 --auto-scale-lr
#
# Published: not verified for this framework (the paper has 78.44 mAP on DOTA-v1.0, second-hand, most likely of
# Oriented R-CNN).
#
# The adapters start with torch's own values, which is how the published runs started them.
#
# Everything decays, the norms of the adapters included, as published: the optimizer is mmengine's own. The published
# framework is H2RBox-v2p of mmrotate 0.x, this is the H2RBox-v2 of mmrotate 1.x.
#
# Trains on trainval; `python tools/test.py` writes the file for the evaluation server and prints no score.
#
# The published files have 2 images per GPU and do not say how many GPUs. This takes 2 images as the batch, as
# mmrotate's own files do; with 8 GPUs `--auto-scale-lr` raises the learning rate. The published code is of mmrotate
# 0.x and crops large images while it tests; here patches are tested and merged. Not run here.
_base_ = [
    './_base_/models/h2rbox-v2_swin-b_fpn.py',
    './_base_/datasets/dota_server_horizontal.py',
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
)
optim_wrapper = dict(optimizer=dict(lr=5e-5))
