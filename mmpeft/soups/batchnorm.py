"""Compute the running statistics of BatchNorm anew, for weights that no training step ended with."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


@torch.no_grad()
def recompute_batchnorm(model: nn.Module, batches: Iterable[Any], forward: Callable[[nn.Module, Any], Any]) -> None:
    """Give the BatchNorm layers of ``model`` the statistics of its weights, as the mean over all batches.

    Only layers whose statistics training moves, those that ``model.train()`` puts in train mode, are touched; they
    alone are in train mode meanwhile. Without such layers nothing is run.

    Args:
        model: A model with new weights; its modes are as before when this returns.
        batches: Training data; how many images there are, and that they are the same ones for every candidate, is the
            caller's choice.
        forward: ``forward(model, batch)`` runs the model.

    Raises:
        ValueError: There is no batch.
    """
    modes = {module: module.training for module in model.modules()}
    norms = [m for m in model.train().modules() if isinstance(m, _BatchNorm) and m.training and m.track_running_stats]
    momenta = {norm: norm.momentum for norm in norms}
    count = 0
    try:
        model.eval()
        for norm in norms:
            norm.momentum = None  # the mean of all batches
            norm.train()
        for batch in batches if norms else ():
            if not count:
                for norm in norms:
                    norm.reset_running_stats()
            forward(model, batch)
            count += 1
    finally:
        for norm, momentum in momenta.items():
            norm.momentum = momentum
        for module, mode in modes.items():
            module.training = mode
    if norms and not count:
        raise ValueError('The statistics of BatchNorm need at least one batch, got none.')
