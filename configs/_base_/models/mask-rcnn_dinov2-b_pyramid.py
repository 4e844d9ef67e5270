# Mask R-CNN on the ViT-B of DINOv2, for images of 1024 px squared: five levels of a pyramid with GroupNorm.
_base_ = ['./mask-rcnn_vit-b_pyramid.py', './dinov2-b.py']

model = dict(backbone=dict(_delete_=True, img_size=1024, **_base_.dinov2))
