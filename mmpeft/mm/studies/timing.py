"""What a training step of each method costs on real images, measured before anything is trained."""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from statistics import median
from time import perf_counter
from typing import Any

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DATASETS, MODELS

from mmpeft.checkpoint import tensors_to_save
from mmpeft.costs import saved_bytes
from mmpeft.freeze import count_parameters
from mmpeft.mm.running.holdout import hold_out
from mmpeft.mm.soups.scoring import FixedBatches, losses
from mmpeft.mm.weights.checkpoints import checkpoints_as_data

REPEATS = 5
MEGA = 1e6


@dataclass(frozen=True)
class Cost:
    """What one method costs.

    Attributes:
        trainable: Trained parameters of the backbone, in millions.
        percent: The same in per cent of the backbone without adapters.
        step: Forward pass, backward pass and update of the whole model, in seconds.
        step_of_full: That as a ratio to full fine-tuning: the median of rounds in which the two stood side by side.
        kept: What autograd keeps of a batch in the whole model, in megabytes (10^6 bytes).
        file: The adapter file, with neck and heads, in megabytes.
    """

    trainable: float
    percent: float
    step: float
    step_of_full: float
    kept: float
    file: float


def measure_costs(full: Config, configs: Mapping[str, Config], repeats: int = REPEATS) -> dict[str, Cost]:
    """The cost of each config of a study, with one batch of its training data.

    Raises:
        ValueError: A method does not fit the backbone, or the base was never given weights.
    """
    batch = _batch(full)
    reference, found = _Model(full), {}
    reference.step(batch)
    for name, cfg in configs.items():
        model = _Model(cfg)
        model.step(batch)
        pairs = [(model.step(batch), reference.step(batch)) for _ in range(repeats)]
        found[name] = model.cost(pairs, batch)
    return found


def seconds_of_a_run(cfg: Config, step: float) -> tuple[float, float]:
    """About how long one training takes, validations included, and scoring its test data.

    Args:
        cfg: The config of a run.
        step: Of full fine-tuning or of the method, in seconds.
    """
    cfg = deepcopy(cfg)
    hold_out(cfg)
    start = perf_counter()
    _batch(cfg)
    loading = perf_counter() - start if not cfg.train_dataloader.get('num_workers') else 0
    model = _Model(cfg)
    once, test = (model.seconds_to_score(cfg[f'{split}_dataloader'].dataset) for split in ('val', 'test'))
    iterations = cfg.train_cfg.get('max_iters')
    if iterations is None:
        images = len(DATASETS.build(deepcopy(cfg.train_dataloader.dataset)))
        per_epoch = -(-images // cfg.train_dataloader.batch_size)
        iterations, validations = cfg.train_cfg.max_epochs * per_epoch, cfg.train_cfg.max_epochs
    else:
        validations = iterations
    validations = max(1, validations // cfg.train_cfg.get('val_interval', 1))
    return iterations * (step + loading) + validations * once, test


def _batch(cfg: Config) -> Any:
    size = cfg.train_dataloader.batch_size
    return next(iter(FixedBatches(cfg.train_dataloader.dataset, size, size)))


class _Model:
    """The model of a config with its optimizer, as training begins with."""

    def __init__(self, cfg: Config) -> None:
        with checkpoints_as_data(cfg):
            self.model = MODELS.build(deepcopy(cfg.model))
            self.model.init_weights()
        self.model.to(get_device())
        self.optimizer = build_optim_wrapper(self.model, deepcopy(cfg.optim_wrapper))

    def step(self, batch: Any) -> float:
        """Seconds of one step of training."""
        self.model.train()
        data = deepcopy(batch)
        start = _now()
        self.model.train_step(data, self.optimizer)
        return _now() - start

    def cost(self, pairs: list[tuple[float, float]], batch: Any) -> Cost:
        counts = count_parameters(self.model.backbone)
        saved = tensors_to_save(self.model, self.model.state_dict())
        return Cost(
            trainable=counts.trainable / MEGA,
            percent=counts.percent_of_base,
            step=median(own for own, _ in pairs),
            step_of_full=median(own / full for own, full in pairs),
            kept=saved_bytes(self.model, lambda: losses(self.model, deepcopy(batch))) / MEGA,
            file=sum(tensor.nbytes for tensor in saved.values()) / MEGA,
        )

    @torch.no_grad()
    def seconds_to_score(self, dataset: Mapping[str, Any]) -> float:
        """About how long it takes to predict all images of a data set, by one of them."""
        self.model.eval()
        batches = FixedBatches(dataset, 1, 1)
        start = _now()
        self.model.val_step(next(iter(batches)))
        return (_now() - start) * batches.images


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return perf_counter()
