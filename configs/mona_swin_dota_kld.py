# Mona in a frozen Swin-B: oriented detection on DOTA-v1.0 with Rotated RetinaNet and KLD.
#
# Trains the adapters (3,667,456 parameters, 4.06 % of the backbone with them), and the neck and the head.
#
#   1 GPU:   python tools/train.py configs/mona_swin_dota_kld.py
#   8 GPUs:  tools/dist_train.sh configs/mona_swin_dota_kld.py 8 --auto-scale-lr
#
# Recipe transferred, no published config.
#
# The adapters start with torch's own values, which is how the published runs started them.
#
# Trains on trainval; `python tools/test.py` writes the file for the evaluation server and prints no score.
#
# The published files have 2 images per GPU and do not say how many GPUs. This takes 2 images as the batch, as
# mmrotate's own files do; with 8 GPUs `--auto-scale-lr` raises the learning rate. The published code is of mmrotate
# 0.x and crops large images while it tests; here patches are tested and merged. Not run here.
_base_ = [
    './_base_/models/rotated-retinanet-kld_swin-b_fpn.py',
    './_base_/datasets/dota_server.py',
    './_base_/schedules/adamw_1x_rotated_no-norm-decay.py',
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
