# Swin-B (window 7, pretrained at 224 px) as the backbone of rotated detectors.
#
# ImageNet-22k weights in the layout of the Swin authors; `convert_weights` renames their keys. The published runs took
# the same weights under mm's names (..._20220317-4f79f7c0.pth), without the prefix that mmdetection's Swin asks for.
checkpoint = 'https://github.com/SwinTransformer/storage/releases/download/v1.0.0/swin_base_patch4_window7_224_22k.pth'

model = dict(
    backbone=dict(
        type='mmdet.SwinTransformer',
        embed_dims=128,
        depths=[2, 2, 18, 2],
        num_heads=[4, 8, 16, 32],
        window_size=7,
        drop_path_rate=0.2,
        convert_weights=True,
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint),
    ),
)
