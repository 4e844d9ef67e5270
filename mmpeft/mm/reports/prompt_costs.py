"""What prompts cost in a ViT by their number: operations and memory of linear probing, VPT-Deep and CVPT."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from mmengine.logging import MMLogger
from mmengine.utils import track_iter_progress
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from mmpeft.costs import flops, peak_of_tensors, without_content
from mmpeft.mm.checks import check_free
from mmpeft.mm.reports.benchmarking import adapted, build
from mmpeft.mm.reports.prompt_attention import pretrained_shares, random_shares, trained_share
from mmpeft.mm.reports.reporting import markdown, write_csv
from mmpeft.plain import use_plain_forms

track = partial(track_iter_progress, file=sys.stderr)
COUNTS = (1, 10, 20, 50, 100, 150, 200)
LINEAR = 'linear probing'
METHODS = {LINEAR: 'Frozen', 'VPT': 'VPT', 'CVPT': 'CVPT'}
PLAIN, OURS = 'plain', 'ours'
CLASSES = 100
MEGA = 1e6
HEADS = dict(
    method='method',
    form='form',
    prompts='prompts',
    batch='batch',
    gflops='GFLOPs',
    training='training, MB',
    inference='inference, MB',
)
SHARES = dict(model='model', prompts='prompts', share="prompts' share of the attention", even='if it were even')


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


def prompt_costs(
    counts: Sequence[int] = COUNTS,
    backbone: str = 'vit-b',
    size: tuple[int, int] = (224, 224),
    batch: int = 32,
    base: str | None = None,
    trained: Sequence[str] = (),
    images: int = 4,
    out: Path | None = None,
) -> str:
    """Count what prompts cost and measure what attention they get; the tables, with ``out`` as CSV and picture, too.

    Args:
        counts: Numbers of prompts in a block.
        backbone: A plain ViT, as for ``benchmark``; costs need no weights.
        size: Height and width of the images.
        batch: How many images memory is for.
        base: A config whose pretrained ViT and test images tell the attention at the start; by default the weights
            are random and the images noise.
        trained: Trained models with VPT to look at, work dirs or ``CONFIG=CHECKPOINT``.
        images: How many images attention is looked at with.
        out: A folder to be made.

    Raises:
        UserError: An argument cannot be used, or the folder holds files already.
    """
    check_free(out)
    MMLogger.get_instance('prompts', log_level='WARNING')  # of how each layer was initialised nothing is told
    stock = build(backbone, size).requires_grad_(False)
    stock.out_indices = stock.out_indices[-1:]
    if base:
        shares = [*pretrained_shares(base, track([*counts]), images)]
    else:
        shares = [*random_shares(stock, track([*counts]), size, images)]
    shares += [trained_share(path, images) for path in trained]
    rows = costs(stock, counts, (batch, 3, *size))
    text = f'{markdown(rows, HEADS)}\n\n{markdown(shares, SHARES)}'
    if out is not None:
        # Here, so that a table needs no matplotlib.
        from mmpeft.mm.reports.prompt_plots import draw_prompt_costs

        out.mkdir(parents=True, exist_ok=True)
        (out / 'prompt_costs.md').write_text(f'{text}\n', encoding='utf-8')
        write_csv(rows, out / 'prompt_costs.csv')
        write_csv(shares, out / 'prompt_attention.csv')
        draw_prompt_costs(rows, shares, out / 'prompt_costs.png')
    return text


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
