# 160,000 iterations with a batch of 16 images, evaluated every 16,000.
#
# ACCUMULATE=N in the environment updates the weights every N iterations: N times the batch on the same GPUs. All that
# counts iterations grows with it.
accumulate = {{'$ACCUMULATE:1'}}

train_cfg = dict(type='IterBasedTrainLoop', max_iters=160000 * accumulate, val_interval=16000 * accumulate)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50, log_metric_by_epoch=False),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=16000 * accumulate, max_keep_ckpts=3),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    visualization=dict(type='SegVisualizationHook'),
)
optim_wrapper = dict(type='OptimWrapper', accumulative_counts=accumulate)

# `--auto-scale-lr` multiplies the learning rate by (images per iteration / 16), whatever ACCUMULATE says.
auto_scale_lr = dict(enable=False, base_batch_size=16)
