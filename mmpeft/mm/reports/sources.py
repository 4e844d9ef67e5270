"""What there is to look at: trained models, what they started from, and some of their images."""

import copy
from collections.abc import Iterator
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS, MODELS, init_default_scope
from torch import Tensor, nn

from mmpeft.mm.backbone import wrap_backbone
from mmpeft.mm.checks import UserError
from mmpeft.mm.reports.runs import config_of
from mmpeft.mm.running.config import use_wrapper_form
from mmpeft.mm.saving.resume import find_resumable
from mmpeft.mm.weights.base import load_base
from mmpeft.mm.weights.checkpoints import checkpoints_as_data
from mmpeft.report import listed

FROZEN = dict(type='Frozen')


def model_source(path: str) -> tuple[str, str]:
    """The config and the checkpoint that a path stands for: a work dir, or ``CONFIG=CHECKPOINT``."""
    if Path(path).is_dir():
        file = Path(path, 'adapters_last.safetensors')
        checkpoint = find_resumable(path) or (str(file) if file.exists() else None)
        if checkpoint is None:
            raise UserError(f'{path} holds no checkpoint and no {file.name}.')
        return config_of(path), checkpoint
    config, sign, checkpoint = path.partition('=')
    if not sign:
        raise UserError(f'{path} is no work dir. Give one, or CONFIG=CHECKPOINT.')
    return config, checkpoint


def pretrained_backbone(cfg: Config, path: str, method: dict = FROZEN) -> nn.Module:
    """The backbone that a training with ``cfg``, read from ``path``, starts from, with another method in it."""
    cfg = copy.deepcopy(cfg)
    init_default_scope(cfg.default_scope)
    if str(cfg.model.backbone.type).startswith('mmpeft.'):
        use_wrapper_form(cfg, path)
    else:
        wrap_backbone(cfg.model, method)
    cfg.model.backbone.method = method
    with checkpoints_as_data(cfg):
        backbone = MODELS.build(cfg.model).backbone
        backbone.init_weights()
        if cfg.get('load_from') and not cfg.get('resume'):
            load_base(backbone, cfg.load_from)
    if backbone.missing:
        raise UserError(
            f'{path} names no pretrained weights for {listed(sorted(backbone.missing))}. Give them by init_cfg of the '
            'backbone.'
        )
    return backbone


def some_images(cfg: Config, images: int) -> Iterator[Tensor]:
    """Some of the test images of ``cfg``, each as its model gets it."""
    init_default_scope(cfg.default_scope)
    dataset, preprocess = DATASETS.build(cfg.test_dataloader.dataset), MODELS.build(cfg.model.data_preprocessor)
    for index in torch.linspace(0, len(dataset) - 1, min(images, len(dataset))).long().tolist():
        yield preprocess(pseudo_collate([dataset[index]]), False)['inputs']
