"""What a ViT takes with prompts, by counting: linear probing, VPT-Deep and CVPT, as published and as here."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from mmengine.utils import track_iter_progress
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from mmpeft.costs import flops, peak_of_tensors, without_content
from mmpeft.mm.reports.benchmarking import adapted
from mmpeft.plain import use_plain_forms

track = partial(track_iter_progress, file=sys.stderr)
LINEAR = 'linear probing'
METHODS = {LINEAR: 'Frozen', 'VPT': 'VPT', 'CVPT': 'CVPT'}
PLAIN, OURS = 'plain', 'ours'
CLASSES = 100
MEGA = 1e6


@dataclass(frozen=True)
class Row:
    """What one model takes; memory is in megabytes (10^6 bytes) of fp32, exact, and what an optimizer keeps not in it.

    Attributes:
        method: The method.
        form: Plain: attention keeps its weights for each pair of tokens, and CVPT is computed step by step. Ours: as
            here.
        prompts: Prompts in each block.
        batch: How many images memory is for.
        gflops: Operations of a forward pass for one image, a multiply-add counted as two.
        training: Weights, images and all tensors at the peak of a forward and a backward pass.
        inference: The same of a forward pass without gradients.
    """

    method: str
    form: str
    prompts: int
    batch: int
    gflops: float
    training: float
    inference: float


def costs(stock: nn.Module, counts: Sequence[int], shape: tuple[int, ...]) -> list[Row]:
    """A row for each method, form and number of prompts.

    Args:
        stock: A frozen plain ViT.
        counts: Numbers of prompts.
        shape: That of the images, (B, 3, H, W).
    """
    cases = [
        (method, form, count)
        for method in METHODS
        for form in (PLAIN, OURS)
        for count in ((0,) if method == LINEAR else counts)
    ]
    return [_row(*case, stock, shape) for case in track(cases)]


def _row(method: str, form: str, count: int, stock: nn.Module, shape: tuple[int, ...]) -> Row:
    backbone = adapted(stock, dict(type=METHODS[method], **dict(num_prompts=count) if count else {}))
    if form == PLAIN:
        use_plain_forms(backbone)
    model = Classifier(backbone)
    with without_content(model), sdpa_kernel(SDPBackend.MATH if form == PLAIN else SDPBackend.FLASH_ATTENTION):
        images = torch.empty(shape)
        given = sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers(), images))
        training = peak_of_tensors(lambda: model.train()(images).sum().backward())
        model.eval().requires_grad_(False)
        inference = peak_of_tensors(lambda: model(images))
        operations = flops(lambda: model(images))
    return Row(
        method=method,
        form=form,
        prompts=count,
        batch=len(images),
        gflops=operations / 1e9 / len(images),
        training=(given + training) / MEGA,
        inference=(given + inference) / MEGA,
    )


class Classifier(nn.Module):
    """A linear layer on the mean of the last map."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(backbone.pos_embed.shape[2], CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.backbone(images)[-1].mean((2, 3)))
