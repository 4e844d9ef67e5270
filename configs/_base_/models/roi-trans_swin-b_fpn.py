# RoI Transformer with FPN on Swin-B, angles in le90, for the 15 classes of DOTA.
from mmengine import Config

_base_ = './swin-b_rotated.py'

# mmrotate's model, which comes in a whole config.
stock = Config.fromstring("_base_ = 'mmrotate::roi_trans/roi-trans-le90_r50_fpn_1x_dota.py'", '.py').model
model = dict(stock, backbone=dict(out_indices=(0, 1, 2, 3)), neck=dict(stock.neck, in_channels=[128, 256, 512, 1024]))
del Config, stock
