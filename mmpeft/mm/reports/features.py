"""The features of models after each block, compared."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations

import torch
import torch.nn.functional as F
from mmengine.device import get_device
from torch import Tensor, nn

from mmpeft.hosts import find_backbone
from mmpeft.mm.checks import UserError

BASE = 'pretrained'


@dataclass(frozen=True)
class Similarities:
    """The mean cosine similarity of features after each block, for pairs of models.

    Attributes:
        blocks: The names of the blocks, in order.
        values: A number for each block, by the names of two models; those with the pretrained one come first.
    """

    blocks: tuple[str, ...]
    values: dict[tuple[str, str], tuple[float, ...]]


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
