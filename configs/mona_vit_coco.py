# Mona in a frozen plain ViT-B/16: instance segmentation on COCO 2017 with Mask R-CNN and a feature pyramid.
#
# Trains the adapters on the patch tokens (2,684,928 parameters), the pyramid, the FPN and all heads.
#
#   1 GPU:   ACCUMULATE=8 python tools/train.py configs/mona_vit_coco.py --amp
#   8 GPUs:  tools/dist_train.sh configs/mona_vit_coco.py 8 --amp
#
# Our extension: the authors publish Mona for Swin alone. The schedule is that of mona_swin_coco.py. Not run here.
_base_ = [
    './_base_/models/mask-rcnn_vit-b_pyramid.py',
    './_base_/datasets/coco_instance_ms-crop.py',
    './_base_/schedules/adamw_3x.py',
    './_base_/default_runtime.py',
]

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmpeft.AdaptedBackbone',
        method=dict(type='Mona'),
        backbone={{_base_.model.backbone}},
    )
)
optim_wrapper = dict(constructor='mmpeft.AdapterOptimWrapperConstructor')
