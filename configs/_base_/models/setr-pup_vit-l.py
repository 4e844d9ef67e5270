# SETR-PUP on ViT-L/16 at 512 px, for the 150 classes of ADE20K: three auxiliary heads on earlier layers.
num_classes = 150
norm_cfg = dict(type='SyncBN', requires_grad=True)
# ImageNet-21k, then ImageNet-1k at 384 px, in timm's layout: `timm:` renames the keys as they load. To use a local
# copy, keep the prefix: timm:FILE.
checkpoint = (
    'timm:https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-vitjx/'
    'jx_vit_large_p16_384-b3be5167.pth'
)


def head(in_index, loss_weight, **sizes):
    return dict(
        type='SETRUPHead',
        in_channels=1024,
        channels=256,
        in_index=in_index,
        num_classes=num_classes,
        dropout_ratio=0,
        norm_cfg=norm_cfg,
        kernel_size=3,
        align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=loss_weight),
        **sizes,
    )


model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor',
        size=(512, 512),
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255,
    ),
    backbone=dict(
        type='VisionTransformer',
        img_size=(512, 512),
        patch_size=16,
        embed_dims=1024,
        num_layers=24,
        num_heads=16,
        out_indices=(9, 14, 19, 23),
        drop_rate=0.1,
        norm_cfg=dict(type='LN', eps=1e-6),
        patch_bias=True,  # the pretrained file has one, and mmsegmentation's default would drop it
        interpolate_mode='bilinear',
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint),
    ),
    decode_head=head(3, 1.0, num_convs=4, up_scale=2),
    auxiliary_head=[head(index, 0.4, num_convs=2, up_scale=4) for index in (0, 1, 2)],
    train_cfg=dict(),
    test_cfg=dict(mode='slide', crop_size=(512, 512), stride=(341, 341)),
)
