"""How much of the attention of a ViT goes to VPT's prompts."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from mmpeft.hosts.call import current_call
from mmpeft.hosts.vit import ViTBackbone
from mmpeft.mm.checks import UserError, check_data
from mmpeft.mm.reports.benchmarking import adapted
from mmpeft.mm.reports.sources import model_source, pretrained_backbone, some_images
from mmpeft.mm.running.config import buildable_config
from mmpeft.mm.running.trained import load_trained


@dataclass(frozen=True)
class Share:
    """What part of the attention that class token and patches pay goes to prompts.

    Attributes:
        model: The model.
        prompts: Prompts among the tokens of a block.
        share: A mean over images, blocks, heads and tokens.
        even: What it would be if every token got as much.
    """

    model: str
    prompts: int
    share: float
    even: float


def random_shares(stock: nn.Module, counts: Iterable[int], size: tuple[int, int], images: int) -> Iterator[Share]:
    """Those of prompts at their starting values in a stock ViT with random weights, for images of noise."""
    noise = torch.randn(images, 3, *size, generator=torch.Generator().manual_seed(0))
    for count in counts:
        backbone = adapted(stock, dict(type='VPT', num_prompts=count))
        yield prompt_share('random base, prompts at the start', backbone, noise.split(1))


def pretrained_shares(path: str, counts: Iterable[int], images: int) -> Iterator[Share]:
    """Those of prompts at their starting values in the pretrained ViT of a config, for some of its test images.

    Raises:
        UserError: The config names no pretrained ViT, or its test images are not there.
    """
    cfg = buildable_config(path)
    check_data(cfg, 'test')
    for count in counts:
        backbone = pretrained_backbone(cfg, path, dict(type='VPT', num_prompts=count))
        yield prompt_share(f'{Path(path).stem}, prompts at the start', backbone, some_images(cfg, images))


def trained_share(path: str, images: int) -> Share:
    """That of a trained model, for some of its test images.

    Args:
        path: A work dir of a training, or ``CONFIG=CHECKPOINT``.
        images: How many, spread over all of them.

    Raises:
        UserError: The path is neither, the checkpoint or the images are missing, or it is no ViT with prompts.
    """
    config, checkpoint = model_source(path)
    cfg = buildable_config(config)
    check_data(cfg, 'test')
    backbone = load_trained(cfg, checkpoint)[0].backbone
    return prompt_share(Path(path.partition('=')[0]).stem, backbone, some_images(cfg, images))


@torch.no_grad()
def prompt_share(name: str, backbone: nn.Module, images: Iterable[Tensor]) -> Share:
    """Give a ViT with VPT images and watch its attention.

    Args:
        name: What to call it.
        backbone: A plain ViT whose attention is frozen.
        images: Batches of one size, (B, 3, H, W).

    Raises:
        UserError: It is no such ViT, it has no prompts, or there is no image.
    """
    if not isinstance(backbone, ViTBackbone):
        raise UserError(f'{name}: a {type(backbone).__name__} has no prompts among its tokens; VPT goes into a ViT.')
    with _Watch() as seen:
        for image in images:
            backbone.eval()(image)
    if not seen.shares:
        raise UserError(f'{name}: no attention was seen; give an image, and a backbone with frozen attention.')
    if not any(seen.prompts):
        raise UserError(f'{name}: there are no prompts among its tokens; give a model with VPT.')
    return Share(name, max(seen.prompts), mean(seen.shares), mean(seen.even))


class _Watch(TorchFunctionMode):
    """For each attention of a ViT to itself, the number of its prompts and the share that they get."""

    def __init__(self) -> None:
        super().__init__()
        self.prompts, self.shares, self.even = [], [], []

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if func is F.scaled_dot_product_attention:
            self._look(*args[:2])
        return func(*args, **(kwargs or {}))

    def _look(self, q: Tensor, k: Tensor) -> None:
        """Shape: ``(B, heads, N, C / heads)`` both; prompts stand between the class token and the patches."""
        call = current_call()
        first, last = call.extra_tokens, k.shape[2] - math.prod(call.hw_shape)
        weights = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1)
        payers = torch.cat((weights[:, :, :first], weights[:, :, last:]), dim=2)
        self.prompts.append(last - first)
        self.shares.append(payers[..., first:last].sum(-1).mean().item())
        self.even.append((last - first) / k.shape[2])
