# 4 epochs of AdamW without warm-up, the learning rate divided by 10 after epoch 3, for a batch of 2 images.
#
# ACCUMULATE=N in the environment updates the weights every N iterations: N times the batch on the same GPUs.
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=4, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

param_scheduler = [dict(type='MultiStepLR', begin=0, end=4, by_epoch=True, milestones=[3], gamma=0.1)]

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05),
    paramwise_cfg=dict(
        custom_keys=dict(
            absolute_pos_embed=dict(decay_mult=0.0),
            relative_position_bias_table=dict(decay_mult=0.0),
            norm=dict(decay_mult=0.0),
        )
    ),
    accumulative_counts={{'$ACCUMULATE:1'}},
)

# `--auto-scale-lr` multiplies the learning rate by (images per iteration / 2), whatever ACCUMULATE says.
auto_scale_lr = dict(enable=False, base_batch_size=2)
