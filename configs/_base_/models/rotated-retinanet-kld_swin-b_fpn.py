# Rotated RetinaNet with horizontal anchors and the KLD loss on the last three stages of Swin-B, angles in oc, for the
# 15 classes of DOTA.
from mmengine import Config

_base_ = './swin-b_rotated.py'

# mmrotate's model, which comes in a whole config.
stock = Config.fromstring("_base_ = 'mmrotate::kld/rotated-retinanet-hbox-oc_r50_fpn_kld_1x_dota.py'", '.py').model
model = dict(
    stock, backbone=dict(out_indices=(1, 2, 3)), neck=dict(stock.neck, in_channels=[256, 512, 1024], start_level=0)
)
del Config, stock
