"""Numbers of a config that the Runner would stumble over, or train nothing with."""

import logging
from math import isfinite
from typing import Any

from mmengine.config import Config
from mmengine.logging import print_log

from mmpeft.mm.checks.errors import UserError
from mmpeft.mm.checks.reading import leaves, type_name

# The least that whole numbers may be.
COUNTS = {
    'train_cfg.max_epochs': 1,
    'train_cfg.max_iters': 1,
    'train_cfg.val_begin': 0,
    'train_cfg.val_interval': 1,
    'optim_wrapper.accumulative_counts': 1,
    'default_hooks.logger.interval': 1,
    'randomness.seed': 0,
    **{f'{split}_dataloader.batch_size': 1 for split in ('train', 'val', 'test')},
    **{f'{split}_dataloader.num_workers': 0 for split in ('train', 'val', 'test')},
}
RATE = 'optim_wrapper.optimizer.lr'


def check_values(cfg: Config) -> None:
    """Refuse counts that are no whole numbers, a learning rate that is none, and a crop without a box in it.

    A rate of 0, which trains nothing, is told.

    Raises:
        UserError: With the key and what it takes.
    """
    for key, least in COUNTS.items():
        value = _value(cfg, key)
        is_count = isinstance(value, int | float) and isfinite(value) and value == int(value) >= least
        if value is not None and (not is_count or isinstance(value, bool)):
            raise UserError(f'{key} is {value!r}, and it takes a whole number of {least} or more.')
    rate = _value(cfg, RATE)
    if rate is not None and not (isinstance(rate, int | float) and isfinite(rate) and rate >= 0):
        raise UserError(f'{RATE} is {rate!r}, and it takes a number above 0.')
    if rate == 0:
        print_log(f'{RATE} is 0: nothing will be trained.', 'current', level=logging.WARNING)
    _check_crop(cfg)


def _check_crop(cfg: Config) -> None:
    """H2RBox-v2 cuts its crop out of the middle; from a smaller image it moves all boxes out of the picture."""
    crop = _value(cfg, 'model.crop_size')
    for _, dataset in leaves('', _value(cfg, 'train_dataloader.dataset')):
        for step in dataset.get('pipeline') or ():
            scale = step.get('scale') if type_name(step.get('type')) == 'Resize' else None
            if crop and scale and min(scale) < max(crop):
                raise UserError(
                    f'model.crop_size is {tuple(crop)}, and training images are resized to {tuple(scale)}: all boxes '
                    f"would lie outside the crop. Give it their size: --cfg-options 'model.crop_size={tuple(scale)}'."
                )


def _value(cfg: Config, key: str) -> Any:
    node = cfg
    for name in key.split('.'):
        node = node.get(name) if isinstance(node, dict | Config) else None
    return node
