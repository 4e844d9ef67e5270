# Mona in the frozen micro Swin on the digits: what `make demo` runs.
#
# Trains the adapters, the neck and the head.
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
optim_wrapper = dict(constructor='mmpeft.AdapterOptimWrapperConstructor')
