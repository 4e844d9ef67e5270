# RetinaNet with FPN on the last three stages of Swin-L (window 7, pretrained at 224 px), for the 20 classes of VOC.
_base_ = 'mmdet::_base_/models/retinanet_r50_fpn.py'

# ImageNet-22k weights in the layout of the Swin authors; `convert_weights` renames their keys.
checkpoint = 'https://github.com/SwinTransformer/storage/releases/download/v1.0.0/swin_large_patch4_window7_224_22k.pth'

model = dict(
    backbone=dict(
        _delete_=True,
        type='SwinTransformer',
        embed_dims=192,
        depths=[2, 2, 18, 2],
        num_heads=[6, 12, 24, 48],
        window_size=7,
        drop_path_rate=0.2,
        out_indices=(1, 2, 3),
        convert_weights=True,
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint),
    ),
    neck=dict(in_channels=[384, 768, 1536], start_level=0, add_extra_convs='on_input', num_outs=5),
    bbox_head=dict(num_classes=20),
)
