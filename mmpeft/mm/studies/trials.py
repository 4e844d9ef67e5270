"""The runs of a study: each a method with a rate, a seed and a part of the training data, as one complete config."""

import re
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from mmengine.config import Config, ConfigDict

from mmpeft.mm.backbone import wrap_backbone
from mmpeft.mm.checks import UserError, evaluators, leaves
from mmpeft.mm.hooks import name_constructor
from mmpeft.mm.running.config import buildable_config, use_wrapper_form


@dataclass(frozen=True)
class Trial:
    """A run: a method as it was written, its learning rate, its seed, and the share of the training images."""

    method: str
    lr: float
    seed: int
    fraction: float

    @property
    def name(self) -> str:
        """What its config and its work dir are called."""
        part = '' if self.fraction == 1 else f'_part{self.fraction:g}'
        return f'{re.sub(r"[^A-Za-z0-9.]+", "-", self.method)}_lr{self.lr:g}_seed{self.seed}{part}'


def stock_config(path: str, options: Mapping[str, Any] | None) -> Config:
    """The config of a file with its stock backbone, whatever adapters it names.

    Raises:
        UserError: It cannot be read, its optimizer has no learning rate, or it has no test data to score on.
    """
    cfg = buildable_config(path, options)
    backbone = cfg.model.get('backbone')
    if not backbone:
        raise UserError(f'The model {cfg.model.get("type")} of {path} has no backbone to adapt.')
    if str(backbone.get('type')).startswith('mmpeft.'):
        use_wrapper_form(cfg, path)
        cfg.model.backbone = cfg.model.backbone.backbone
    if not (cfg.get('optim_wrapper') or {}).get('optimizer', {}).get('lr'):
        raise UserError(f'{path} sets no optim_wrapper.optimizer.lr, which differs from method to method.')
    if not cfg.get('test_dataloader') or not cfg.get('test_evaluator'):
        raise UserError(
            f'{path} names no test data (test_dataloader and test_evaluator), by which methods are compared.'
        )
    if any(metric.get('format_only') for metric in evaluators(cfg, 'test')):
        raise UserError(f'{path} writes what it finds in the test data for a server; compare on data that have labels.')
    return cfg


def config_of(stock: Config, method: Mapping[str, Any], trial: Trial, annotations: Mapping[float, str]) -> Config:
    """The whole config of one run.

    Args:
        stock: A config with a stock backbone, and with ``heldout``.
        method: What to inject.
        trial: The run.
        annotations: For each share of the training images what takes the place of ``ann_file``.
    """
    cfg = deepcopy(stock)
    wrap_backbone(cfg.model, dict(method))
    name_constructor(cfg)
    cfg.optim_wrapper.optimizer.lr = trial.lr
    cfg.randomness = {**cfg.get('randomness', {}), 'seed': trial.seed}
    if trial.fraction in annotations:
        _, dataset = next(leaves('', cfg.train_dataloader.dataset))
        cfg.heldout.setdefault('ann_file', dataset.get('ann_file', ''))  # it is the training set, with other options
        dataset.ann_file = annotations[trial.fraction]
    if trial.fraction != 1 and cfg.train_cfg.get('max_epochs'):  # as many iterations as with all images
        times = max(1, round(1 / trial.fraction))
        whole = cfg.train_dataloader.dataset
        cfg.train_dataloader.dataset = ConfigDict(type='RepeatDataset', times=times, dataset=whole)
    return cfg
