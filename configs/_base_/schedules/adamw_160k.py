# AdamW with a linear decay to zero over 160,000 iterations, and a warm-up that multiplies it, as in mmcv 1.x.
_base_ = './iterations_160k.py'

param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=False, begin=0, end=1500 * _base_.accumulate),
    dict(type='PolyLR', eta_min=0.0, power=1.0, by_epoch=False, begin=0, end=_base_.train_cfg.max_iters),
]

optim_wrapper = dict(
    optimizer=dict(type='AdamW', lr=6e-5, betas=(0.9, 0.999), weight_decay=0.01),
    paramwise_cfg=dict(
        custom_keys=dict(
            absolute_pos_embed=dict(decay_mult=0.0),
            relative_position_bias_table=dict(decay_mult=0.0),
            norm=dict(decay_mult=0.0),
        )
    ),
)
