# Mona in a frozen DINOv3 ViT-B: instance segmentation on COCO 2017 with Mask R-CNN and a feature pyramid.
#
# Trains the adapters on the patch tokens (2,684,928 parameters, 3.04 % of the backbone with them), the pyramid, the FPN
# and all heads.
#
#   1 GPU:   ACCUMULATE=8 python tools/train.py configs/mona_dinov3_coco.py --amp
#   8 GPUs:  tools/dist_train.sh configs/mona_dinov3_coco.py 8 --amp
#
# Our extension, no published recipe: for all methods alike optimizer and schedule are those of mona_swin_coco.py, and
# norms, layer scales, the class token and registers do not decay. Mixed precision (`--amp`) needs a GPU. Not run here:
# no pretrained file could be fetched, so the config was built, and trained in small on random weights, and no more.
#
# Images have 1024 px squared. Needs timm: pip install 'mmpeft[timm,hub]'. The base is timm's file on the Hugging Face
# hub, vit_base_patch16_dinov3.lvd1689m; training is refused if a tensor of the base is not in it. For a local copy of
# model.safetensors, or to let timm itself fetch it, or convert a file of the authors, as the model is built:
#   --cfg-options model.backbone.backbone.init_cfg.checkpoint=FILE
#   --cfg-options model.backbone.backbone.init_cfg=None model.backbone.backbone.pretrained=True \
#     [model.backbone.backbone.pretrained_cfg_overlay.file=FILE]
_base_ = [
    './_base_/models/mask-rcnn_dinov3-b_pyramid.py',
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
no_decay = dict.fromkeys(('cls_token', 'reg_token', 'gamma_1', 'gamma_2'), dict(decay_mult=0.0))
optim_wrapper = dict(
    constructor='mmpeft.AdapterOptimWrapperConstructor',
    paramwise_cfg=dict(custom_keys=no_decay),
)
