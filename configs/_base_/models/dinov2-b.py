# The ViT-B of DINOv2 with patches of 16 px and four maps.
#
# In the file of its authors patches have 14 px. As it loads, their kernel is resampled to 16 px, so that a patch gives
# the same token at either size, and the positions are resized to the grid of `img_size`. `timm:` renames the keys. To
# use a local copy, keep the prefix: timm:FILE. OpenMMLab's file has mm's names, and needs prefix='backbone' instead.
dinov2 = dict(
    type='mmpretrain.VisionTransformer',
    arch='base',
    patch_size=16,
    layer_scale_init_value=1e-5,
    drop_path_rate=0.1,
    out_type='featmap',
    out_indices=(2, 5, 8, 11),
    init_cfg=dict(
        type='Pretrained',
        checkpoint='timm:https://dl.fbaipublicfiles.com/dinov2/dinov2_vitb14/dinov2_vitb14_pretrain.pth',
    ),
)
