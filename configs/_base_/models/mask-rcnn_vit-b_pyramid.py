# Mask R-CNN on a plain ViT-B/16: its one map is scaled to strides 4 to 32 and goes through an FPN.
#
# GroupNorm in the pyramid, so that the batch size does not matter.
_base_ = 'mmdet::_base_/models/mask-rcnn_r50_fpn.py'

# ImageNet-21k, then ImageNet-1k at 384 px, converted by OpenMMLab.
checkpoint = 'https://mmassets.onedl.ai/mmclassification/v0/vit/finetune/vit-base-p16_in21k-pre-3rdparty_ft-64xb64_in1k-384_20210928-98e8652b.pth'  # noqa: E501

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmpretrain.VisionTransformer',
        arch='base',
        img_size=384,
        patch_size=16,
        drop_path_rate=0.1,
        out_type='featmap',
        out_indices=(2, 5, 8, 11),
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint, prefix='backbone'),
    ),
    neck=[
        dict(
            type='mmseg.Feature2Pyramid',
            embed_dim=768,
            rescales=[4, 2, 1, 0.5],
            norm_cfg=dict(type='GN', num_groups=32),
        ),
        dict(type='FPN', in_channels=[768, 768, 768, 768], out_channels=256, num_outs=5),
    ],
)
