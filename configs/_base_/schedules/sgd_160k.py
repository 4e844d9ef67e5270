# SGD with a polynomial decay over 160,000 iterations; the heads learn ten times as fast.
_base_ = './iterations_160k.py'

param_scheduler = [
    dict(type='PolyLR', eta_min=1e-4, power=0.9, by_epoch=False, begin=0, end=_base_.train_cfg.max_iters)
]

optim_wrapper = dict(
    optimizer=dict(type='SGD', lr=1e-3, momentum=0.9, weight_decay=0.0),
    paramwise_cfg=dict(custom_keys=dict(head=dict(lr_mult=10.0))),
)
