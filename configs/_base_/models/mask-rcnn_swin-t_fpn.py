# Mask R-CNN with FPN on Swin-T (window 7, pretrained on ImageNet-1k at 224 px), for the 80 classes of COCO.
_base_ = 'mmdet::_base_/models/mask-rcnn_r50_fpn.py'

# In the layout of the Swin authors; `convert_weights` renames the keys.
checkpoint = 'https://github.com/SwinTransformer/storage/releases/download/v1.0.0/swin_tiny_patch4_window7_224.pth'

model = dict(
    backbone=dict(
        _delete_=True,
        type='SwinTransformer',
        embed_dims=96,
        depths=[2, 2, 6, 2],
        num_heads=[3, 6, 12, 24],
        window_size=7,
        drop_path_rate=0.2,
        out_indices=(0, 1, 2, 3),
        convert_weights=True,
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint),
    ),
    neck=dict(in_channels=[96, 192, 384, 768]),
)
