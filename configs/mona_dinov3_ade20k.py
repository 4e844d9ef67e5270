# Mona in a frozen DINOv3 ViT-B: semantic segmentation on ADE20K with a feature pyramid and UperNet.
#
# Trains the adapters on the patch tokens (2,684,928 parameters, 3.04 % of the backbone with them), the pyramid and both
# heads.
#
#   1 GPU:   ACCUMULATE=8 python tools/train.py configs/mona_dinov3_ade20k.py
#   8 GPUs:  tools/dist_train.sh configs/mona_dinov3_ade20k.py 8
#
# Our extension, no published recipe: for all methods alike optimizer and schedule are those of full_swin_ade20k.py, and
# norms, layer scales, the class token and registers do not decay. On Swin, Mona is published with five times this
# learning rate. Mixed precision (`--amp`) needs a GPU. Not run here: no pretrained file could be fetched.
#
# Crops have 512 px, a grid of 32 x 32, in testing too. What to know of the base, and of a local copy of its file:
# mona_dinov3_coco.py.
_base_ = [
    './_base_/models/upernet_dinov3-b_pyramid.py',
    './_base_/datasets/ade20k.py',
    './_base_/schedules/adamw_160k.py',
    './_base_/segmentation_runtime.py',
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
