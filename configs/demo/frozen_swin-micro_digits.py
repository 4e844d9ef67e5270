# The frozen micro Swin on the digits: what Mona has to beat.
#
# Trains the neck and the head alone, at three times the rate of full fine-tuning: docs/demo.md has both rates.
#
#   python tools/train.py configs/demo/frozen_swin-micro_digits.py
_base_ = './full_swin-micro_digits.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmpeft.AdaptedBackbone',
        method=dict(type='Frozen'),
        backbone={{_base_.model.backbone}},
    )
)
optim_wrapper = dict(constructor='mmpeft.AdapterOptimWrapperConstructor', optimizer=dict(lr=3e-3))
