"""What prompts cost in a ViT by their number: operations and memory of linear probing, VPT-Deep and CVPT."""

from collections.abc import Sequence
from pathlib import Path

from mmengine.logging import MMLogger

from mmpeft.mm.checks import check_free
from mmpeft.mm.reports.benchmarking import build
from mmpeft.mm.reports.prompt_attention import pretrained_shares, random_shares, trained_share
from mmpeft.mm.reports.prompt_counts import costs, track
from mmpeft.mm.reports.tables import markdown, write_csv

COUNTS = (1, 10, 20, 50, 100, 150, 200)
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
