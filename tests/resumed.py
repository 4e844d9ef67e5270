"""Runs of a tiny model that can be interrupted, with every use of random numbers that training can make of them."""

import random
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, HOOKS, METRICS, MODELS
from mmengine.runner import Runner
from tiny import trained
from torch import nn

# Serializing eight points would take most of the time of a run, in a collection of garbage.
DATA = dict(type='ShakenDataset', serialize_data=False)


@DATASETS.register_module()
class ShakenDataset(BaseDataset):
    """Eight points, augmented with all three global generators."""

    def load_data_list(self) -> list[dict]:
        return [dict(index=i) for i in range(8)]

    def prepare_data(self, index: int) -> dict:
        shake = random.random() + np.random.normal() + torch.rand(()).item()
        return dict(inputs=torch.full((4,), index / 8) + 0.1 * shake)


@MODELS.register_module()
class DropoutModel(BaseModel):
    """Two layers with dropout and batch statistics between them."""

    def __init__(self, data_preprocessor=None) -> None:
        super().__init__(data_preprocessor)
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, 2))

    def forward(self, inputs, mode: str = 'tensor'):
        out = self.layers(torch.stack(list(inputs)))
        return dict(loss=(out - 1).square().mean()) if mode == 'loss' else list(out)


@METRICS.register_module()
class NoisyMetric(BaseMetric):
    """Better every time or so; draws from every generator."""

    def process(self, data_batch, data_samples) -> None:
        self.results += [float(sample.sum()) + random.random() + np.random.rand() for sample in data_samples]

    def compute_metrics(self, results: list) -> dict:
        return dict(score=float(np.mean(results)) + torch.rand(()).item())


class Killed(BaseException):
    """Stands in for SIGKILL: nothing in mmengine catches it."""


@HOOKS.register_module()
class KillHook(Hook):
    """Raise at the ``count``-th call of the method ``at``, before all other hooks or after them."""

    def __init__(self, at: str, count: int, priority: str = 'HIGHEST') -> None:
        self.count = count
        self.priority = priority
        setattr(self, at, self._count)

    def _count(self, *args, **kwargs) -> None:
        self.count -= 1
        if self.count == 0:
            raise Killed


def config(
    work_dir: Path, loop: str = 'epochs', ema: bool = False, rounds: int = 3, seed: int | None = 5, **changes
) -> Config:
    """Rounds of four iterations with a validation after each, as epochs or not; those end in a checkpoint each."""
    by_epoch = loop == 'epochs'
    data = dict(num_workers=0, dataset=DATA)
    sampler = dict(type='DefaultSampler' if by_epoch else 'InfiniteSampler', shuffle=True)
    epochs = dict(by_epoch=True, max_epochs=rounds)
    iters = dict(by_epoch=False, max_iters=4 * rounds, val_interval=4)
    checkpoint = dict(type='mmpeft.CheckpointHook', by_epoch=by_epoch, interval=1 if by_epoch else 3, max_keep_ckpts=2)
    average = dict(type='EMAHook', momentum=0.1, update_buffers=True)
    cfg = dict(
        default_scope='mmengine',
        work_dir=str(work_dir),
        model=dict(type='DropoutModel'),
        train_dataloader=dict(batch_size=2, sampler=sampler, **data),
        val_dataloader=dict(batch_size=4, sampler=dict(type='DefaultSampler', shuffle=False), **data),
        val_evaluator=dict(type='NoisyMetric'),
        train_cfg=epochs if by_epoch else iters,
        val_cfg=dict(),
        optim_wrapper=dict(optimizer=dict(type='AdamW', lr=1e-2)),
        param_scheduler=[dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=9)],
        default_hooks=dict(checkpoint=checkpoint),
        custom_hooks=[dict(type='mmpeft.ExactResumeHook'), *([average] if ema else [])],
        randomness=dict(seed=seed),
        log_level='WARNING',
    )
    return Config(cfg | changes)


def killed(cfg: Config, at: str, count: int, priority: str = 'HIGHEST') -> None:
    """Run ``cfg`` until the ``count``-th call of the hook method ``at``."""
    cfg = cfg.copy()
    cfg.custom_hooks = [*cfg.custom_hooks, dict(type='KillHook', at=at, count=count, priority=priority)]
    try:
        trained(cfg)
    except Killed:
        return
    raise AssertionError(f'{at} was not called {count} times')


def resumed(cfg: Config) -> Runner:
    """Go on from the last checkpoint, with generators that stand elsewhere."""
    random.seed(0)
    np.random.seed(0)
    cfg = cfg.copy()
    cfg.resume = True
    return trained(cfg)


def final(runner: Runner) -> dict[str, torch.Tensor]:
    return saved(Path(runner.work_dir))


def saved(work_dir: Path) -> dict[str, torch.Tensor]:
    """Everything that training left behind in its last checkpoint: weights, averages, optimizer."""
    checkpoint = torch.load((work_dir / 'last_checkpoint').read_text(), weights_only=False)
    parts = {part: checkpoint[part] for part in ('state_dict', 'ema_state_dict') if part in checkpoint}
    tensors = {f'{part}.{name}': tensor for part, state in parts.items() for name, tensor in state.items()}
    for index, state in checkpoint['optimizer']['state'].items():
        tensors |= {f'optimizer.{index}.{name}': tensor for name, tensor in state.items()}
    return tensors
