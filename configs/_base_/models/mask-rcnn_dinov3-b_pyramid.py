# Mask R-CNN on the ViT-B of DINOv3: five levels of a pyramid with GroupNorm.
_base_ = ['./mask-rcnn_vit-b_pyramid.py', './dinov3-b.py']

model = dict(backbone=dict(_delete_=True, **_base_.dinov3))
