# Mona in a frozen Swin-B: oriented detection on DOTA-v1.0 with Oriented R-CNN, scored at home.
#
# Trains the adapters (3,667,456 parameters, 4.06 % of the backbone with them), and the neck and all heads.
#
#   1 GPU:   python tools/train.py configs/mona_swin_dota_oriented-rcnn_train-val.py
#   8 GPUs:  tools/dist_train.sh configs/mona_swin_dota_oriented-rcnn_train-val.py 8 --auto-scale-lr
#
# Recipe transferred, no published config.
#
# The adapters start with torch's own values, which is how the published runs started them.
#
# Trains on train and scores whole images of val, which needs no server. The score is not that of the server. What
# else to know: mona_swin_dota_oriented-rcnn.py. Not run here.
_base_ = [
    './_base_/models/oriented-rcnn_swin-b_fpn.py',
    './_base_/datasets/dota_train-val.py',
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
