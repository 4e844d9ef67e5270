# Mona in the frozen micro Swin on the digits: what `make demo` runs.
#
# Trains the adapters, the neck and the head, at three times the rate of full fine-tuning: docs/demo.md has both rates.
#
#   python tools/train.py configs/demo/mona_swin-micro_digits.py
_base_ = './full_swin-micro_digits.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmpeft.AdaptedBackbone',
        method=dict(type='Mona', bottleneck=16),
        backbone={{_base_.model.backbone}},
    )
)
optim_wrapper = dict(constructor='mmpeft.AdapterOptimWrapperConstructor', optimizer=dict(lr=3e-3))
