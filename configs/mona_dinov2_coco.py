# Mona in a frozen DINOv2 ViT-B: instance segmentation on COCO 2017 with Mask R-CNN and a feature pyramid.
#
# Trains the adapters on the patch tokens (2,684,928 parameters, 2.93 % of the backbone with them), the pyramid, the FPN
# and all heads.
#
#   1 GPU:   ACCUMULATE=8 python tools/train.py configs/mona_dinov2_coco.py --amp
#   8 GPUs:  tools/dist_train.sh configs/mona_dinov2_coco.py 8 --amp
#
# Our extension, no published recipe: for all methods alike optimizer and schedule are those of mona_swin_coco.py, and
# norms, layer scales, positions and the class token do not decay. Mixed precision (`--amp`) needs a GPU. Not run here.
#
# Images have 1024 px squared. The base is the file of DINOv2's authors: as it loads, its patches of 14 px become those
# of 16 px and its positions a grid of 64 x 64, and training is refused if a tensor of the base is not in the file. For
# a local copy of it, or for OpenMMLab's file:
#   --cfg-options model.backbone.backbone.init_cfg.checkpoint=timm:FILE
#   --cfg-options model.backbone.backbone.init_cfg.checkpoint=FILE model.backbone.backbone.init_cfg.prefix=backbone
_base_ = [
    './_base_/models/mask-rcnn_dinov2-b_pyramid.py',
    './_base_/datasets/coco_instance_1024.py',
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
no_decay = dict.fromkeys(('cls_token', 'pos_embed', 'ln1', 'ln2', 'gamma1', 'gamma2'), dict(decay_mult=0.0))
optim_wrapper = dict(
    constructor='mmpeft.AdapterOptimWrapperConstructor',
    paramwise_cfg=dict(custom_keys=no_decay),
)
