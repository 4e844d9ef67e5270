# UperNet on the ViT-B of DINOv3, for crops of 512 px and the 150 classes of ADE20K: its maps are scaled to strides 4 to
# 32 by a pyramid with GroupNorm.
_base_ = ['./upernet_swin-l.py', './dinov3-b.py']

model = dict(
    backbone=dict(_delete_=True, **_base_.dinov3),
    neck=dict(
        type='Feature2Pyramid',
        embed_dim=768,
        rescales=[4, 2, 1, 0.5],
        norm_cfg=dict(type='GN', num_groups=32),
    ),
    decode_head=dict(in_channels=[768, 768, 768, 768]),
    test_cfg=dict(mode='slide', crop_size=(512, 512), stride=(341, 341)),
)
