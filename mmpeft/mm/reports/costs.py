"""What training one config costs, by counting."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from torch import nn

from mmpeft.checkpoint import tensors_to_save
from mmpeft.costs import flops, saved_bytes, without_content
from mmpeft.freeze import adapted_backbones, count_parameters
from mmpeft.mm.reports.runs import Run
from mmpeft.mm.running.config import buildable_config

SHAPES = {'mmdet': (800, 1344), 'mmrotate': (1024, 1024)}
# Tensors of a parameter's size that an optimizer keeps; SGD keeps one if it has momentum.
STATES = {'Adam': 2, 'AdamW': 2, 'NAdam': 2, 'RAdam': 2, 'Adamax': 2, 'Adagrad': 1, 'Lion': 1}
MEGA = 1e6


@dataclass(frozen=True)
class Costs:
    """What training one config costs; sizes are in megabytes (10^6 bytes) of fp32.

    Attributes:
        name: The config's name.
        methods: The methods in its backbone.
        trainable: Trainable parameters of the backbone, in millions.
        percent_of_base: The same in per cent of the backbone without adapters.
        percent_of_all: And in per cent of the backbone with adapters.
        whole: Trainable parameters of the whole model, in millions.
        gflops: Operations of the backbone for one image, a multiply-add counted as two.
        activations: What the backbone keeps of one image for the backward pass.
        optimizer: What the optimizer keeps for the trainable parameters; None if it is an unknown one.
        file: The adapter file, or all weights where there are no adapters.
        score: The best score of a run.
        last: Its last score.
    """

    name: str
    methods: str
    trainable: float
    percent_of_base: float
    percent_of_all: float
    whole: float
    gflops: float
    activations: float
    optimizer: float | None
    file: float
    score: float | None = None
    last: float | None = None


def costs(config: str, shape: tuple[int, int] | None = None, run: Run | None = None) -> Costs:
    """Build the model of a config and count; operations and activations come without any computing.

    Args:
        config: A config file of mmdet, mmseg or mmrotate.
        shape: Height and width of the input; by default those that the library's configs have.
        run: What a training with it reached.

    Raises:
        UserError: The config cannot be built.
    """
    cfg = buildable_config(config)
    model = MODELS.build(copy.deepcopy(cfg.model))
    backbone = model.backbone
    counts, whole = count_parameters(backbone), count_parameters(model)
    saved = tensors_to_save(model, model.state_dict())
    methods = [m['type'] for b in adapted_backbones(model).values() for m in b.adapter_methods]
    gflops, activations = _measure(backbone, shape or _shape_of(cfg))
    states = _optimizer_states(cfg.optim_wrapper.get('optimizer', {}))
    return Costs(
        name=run.name if run else Path(config).stem,
        methods=', '.join(methods) or 'none',
        trainable=counts.trainable / MEGA,
        percent_of_base=counts.percent_of_base,
        percent_of_all=counts.percent_of_all,
        whole=whole.trainable / MEGA,
        gflops=gflops / 1e9,
        activations=activations / MEGA,
        optimizer=None if states is None else 4 * states * whole.trainable / MEGA,
        file=sum(tensor.nbytes for tensor in saved.values()) / MEGA,
        score=max(score for _, score in run.scores) if run and run.scores else None,
        last=run.scores[-1][1] if run and run.scores else None,
    )


def _measure(backbone: nn.Module, shape: tuple[int, int]) -> tuple[int, int]:
    """Operations and kept bytes of one image, by tensors without content."""
    backbone.allow_random_base = True
    with without_content(backbone):
        image = torch.empty(1, 3, *shape)
        backbone.eval()
        operations = flops(lambda: backbone(image))
        backbone.train()
        return operations, saved_bytes(backbone, lambda: backbone(image))


def _shape_of(cfg: Config) -> tuple[int, int]:
    size = cfg.model.get('data_preprocessor', {}).get('size') or SHAPES.get(cfg.default_scope, (512, 512))
    return tuple(size)


def _optimizer_states(optimizer: Mapping[str, Any]) -> int | None:
    if optimizer.get('type') == 'SGD':
        return int(bool(optimizer.get('momentum')))
    return STATES.get(optimizer.get('type'))
