# As adamw_1x_rotated.py, but norms and positions do not decay.
_base_ = './adamw_1x_rotated.py'

optim_wrapper = dict(
    constructor='mmpeft.AdapterOptimWrapperConstructor',
    paramwise_cfg=dict(
        custom_keys=dict(
            absolute_pos_embed=dict(decay_mult=0.0),
            relative_position_bias_table=dict(decay_mult=0.0),
            norm=dict(decay_mult=0.0),
        )
    ),
)
