"""How alike the features of models are, block by block: of trained ones to the pretrained one, and to each other."""

import copy
import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.device import get_device
from mmengine.registry import DATASETS, MODELS, init_default_scope
from torch import Tensor, nn

from mmpeft.hosts import find_backbone
from mmpeft.mm.backbone import wrap_backbone
from mmpeft.mm.checks import UserError, check_data, check_free
from mmpeft.mm.reports.reporting import config_of
from mmpeft.mm.running.config import buildable_config, use_wrapper_form
from mmpeft.mm.running.trained import load_trained
from mmpeft.mm.saving.resume import find_resumable
from mmpeft.mm.weights.base import load_base
from mmpeft.mm.weights.checkpoints import checkpoints_as_data
from mmpeft.report import listed

BASE = 'pretrained'
FROZEN = dict(type='Frozen')
# What makes other inputs of the same picture.
COLOURS = ('mean', 'std', 'bgr_to_rgb')


@dataclass(frozen=True)
class Similarities:
    """The mean cosine similarity of features after each block, for pairs of models.

    Attributes:
        blocks: The names of the blocks, in order.
        values: A number for each block, by the names of two models; those with the pretrained one come first.
    """

    blocks: tuple[str, ...]
    values: dict[tuple[str, str], tuple[float, ...]]


def similarity(paths: Sequence[str], images: int = 8, out: Path | None = None) -> str:
    """The table of similarities of trained models; with ``out``, a CSV and a picture in a folder, too.

    Args:
        paths: Work dirs of trainings, or ``CONFIG=CHECKPOINT``; their backbones have the same blocks, and the first
            config names the pretrained weights.
        images: How many of the first config's test images are looked at, spread over all of them.
        out: The folder to write to.

    Raises:
        UserError: A path is neither of the two; a checkpoint, pretrained weights or images are missing; the models
            cannot be compared; or the folder holds files already.
    """
    check_free(out)
    sources = [model_source(path) for path in paths]
    cfgs = [buildable_config(config) for config, _ in sources]
    _check_colours(cfgs)
    check_data(cfgs[0], 'test')
    names = [Path(path).name if Path(path).is_dir() else Path(path.partition('=')[0]).stem for path in paths]
    backbones = {BASE: pretrained_backbone(cfgs[0], sources[0][0])}
    for name, path, cfg, (_, checkpoint) in zip(names, paths, cfgs, sources, strict=True):
        init_default_scope(cfg.default_scope)
        backbones[name if names.count(name) == 1 else path] = load_trained(cfg, checkpoint)[0].backbone
    found = compare(backbones, some_images(cfgs[0], images))
    heads, *lines = _lines(found)
    rule = ['---', *['---:'] * len(found.values)]
    text = '\n'.join(f'| {" | ".join(line)} |' for line in (heads, rule, *lines))
    if out is not None:
        # Here, so that a table needs no matplotlib.
        from mmpeft.mm.reports.similarity_plots import draw_similarities

        out.mkdir(parents=True, exist_ok=True)
        (out / 'similarity.md').write_text(f'{text}\n', encoding='utf-8')
        with (out / 'similarity.csv').open('w', newline='', encoding='utf-8') as file:
            csv.writer(file).writerows([heads, *lines])
        draw_similarities(found, out / 'similarity.png')
    return text


@torch.no_grad()
def compare(backbones: Mapping[str, nn.Module], inputs: Iterable[Tensor]) -> Similarities:
    """Give several backbones the same images and compare what comes out of their blocks, position by position.

    Args:
        backbones: Backbones with the same blocks, by their names.
        inputs: Batches of images, (B, 3, H, W).

    Raises:
        UserError: The backbones differ in their blocks, or there is no image.
    """
    blocks = {name: _blocks(backbone) for name, backbone in backbones.items()}
    sums, count = dict.fromkeys(combinations(backbones, 2), 0.0), 0
    for a, b in sums:
        if blocks[a] != blocks[b]:
            raise UserError(
                f'{a} has {len(blocks[a])} blocks and {b} {len(blocks[b])}; compare models on one backbone.'
            )
    for backbone in backbones.values():
        backbone.to(get_device()).eval()
    for image in inputs:
        found = {name: _features(backbone, image.to(get_device())) for name, backbone in backbones.items()}
        for a, b in sums:
            sums[a, b] += torch.stack([_alike(a, x, b, y) for x, y in zip(found[a], found[b], strict=True)]).cpu()
        count += 1
    if not count:
        raise UserError('There is no image to compare features of.')
    first = next(iter(blocks.values()))
    return Similarities(tuple(first), {pair: tuple((total / count).tolist()) for pair, total in sums.items()})


def _alike(a: str, x: Tensor, b: str, y: Tensor) -> Tensor:
    if x.shape != y.shape:
        raise UserError(f'The features of {a} are {tuple(x.shape)} and those of {b} {tuple(y.shape)}.')
    return F.cosine_similarity(x, y, dim=-1).mean()


def _blocks(backbone: nn.Module) -> list[str]:
    host = find_backbone(type(backbone))
    if host is None:
        raise UserError(f'No host describes the blocks of {type(backbone).__name__}.')
    return host.blocks_of(backbone)


def _features(backbone: nn.Module, images: Tensor) -> list[Tensor]:
    """What comes out of each block, (B, positions, C)."""
    found: list[Tensor] = []
    hooks = [
        backbone.get_submodule(name).register_forward_hook(lambda _, __, out: found.append(out))
        for name in _blocks(backbone)
    ]
    try:
        backbone(images)
    finally:
        for hook in hooks:
            hook.remove()
    return [out.flatten(2).mT if out.dim() == 4 else out for out in found]


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


def _check_colours(cfgs: Sequence[Config]) -> None:
    seen = [{key: cfg.model.data_preprocessor.get(key) for key in COLOURS} for cfg in cfgs]
    if any(one != seen[0] for one in seen):
        raise UserError(
            f'The models are given other colours: {", ".join(map(str, seen))}. Compare those that see the same.'
        )


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


def _lines(found: Similarities) -> list[list[str]]:
    """A line for each block, after one of heads."""
    heads = ['block', *(f'{a} / {b}' for a, b in found.values)]
    columns = zip(*found.values.values(), strict=True)
    return [heads, *([block, *(f'{v:.4f}' for v in row)] for block, row in zip(found.blocks, columns, strict=True))]
