# H2RBox-v2 with FPN on the last three stages of Swin-B, angles in le90, for the 15 classes of DOTA: it learns angles
# from horizontal boxes, except of round classes: baseball diamonds, storage tanks and roundabouts.
from mmengine import Config

_base_ = './swin-b_rotated.py'

# mmrotate's model, which comes in a whole config.
stock = Config.fromstring("_base_ = 'mmrotate::h2rbox_v2/h2rbox_v2-le90_r50_fpn-1x_dota.py'", '.py').model
model = dict(
    stock, backbone=dict(out_indices=(1, 2, 3)), neck=dict(stock.neck, in_channels=[256, 512, 1024], start_level=0)
)
del Config, stock
