# 12 epochs of AdamW with clipped gradients, the learning rate divided by 10 after epochs 8 and 11; everything decays.
#
# ACCUMULATE=N in the environment updates the weights every N iterations: N times the batch on the same GPUs. The
# warm-up, which counts iterations, grows with it.
accumulate = {{'$ACCUMULATE:1'}}

train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=12, val_interval=6)
test_cfg = dict(type='TestLoop')

param_scheduler = [
    dict(type='LinearLR', start_factor=1 / 3, by_epoch=False, begin=0, end=500 * accumulate),
    dict(type='MultiStepLR', begin=0, end=12, by_epoch=True, milestones=[8, 11], gamma=0.1),
]

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05),
    clip_grad=dict(max_norm=35, norm_type=2),
    accumulative_counts=accumulate,
    constructor='DefaultOptimWrapperConstructor',
)

# The published files have 2 images per GPU and do not say how many GPUs; this takes one, as mmrotate's files do.
# `--auto-scale-lr` multiplies the learning rate by (images per iteration / 2), whatever ACCUMULATE says.
auto_scale_lr = dict(enable=False, base_batch_size=2)
