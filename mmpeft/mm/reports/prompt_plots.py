"""A picture of what prompts cost and of the attention that they get."""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from matplotlib.axes import Axes

from mmpeft.mm.reports.prompt_attention import Share
from mmpeft.mm.reports.prompt_counts import LINEAR, OURS, Row
from mmpeft.mm.reports.report_plots import new_figure

PANELS = {
    'training': 'training on {} images, GB',
    'inference': 'inference on {} images, GB',
    'gflops': 'operations for one image, GFLOPs',
}
COLOURS = {LINEAR: '#777777', 'VPT': '#d1495b', 'CVPT': '#2a6fbb'}


def draw_prompt_costs(rows: Sequence[Row], shares: Sequence[Share], path: Path) -> None:
    """A panel for each kind of cost, with a line for each method and form, and one for attention."""
    figure = new_figure(17, 4.2)
    *axes, last = figure.subplots(1, len(PANELS) + 1)
    for ax, (field, title) in zip(axes, PANELS.items(), strict=True):
        _lines(ax, rows, field, title.format(rows[0].batch))
    axes[0].legend(fontsize=8)
    _attention(last, shares)
    for ax in (*axes, last):
        ax.set_xlabel('prompts')
        ax.set_ylim(bottom=0)
        ax.grid(alpha=0.3)
    figure.savefig(path, dpi=150)


def _lines(ax: Axes, rows: Sequence[Row], field: str, title: str) -> None:
    """Solid as here, dashed plain; what has no prompts is a level."""
    unit = 1 if field == 'gflops' else 1e3
    for (method, form), group in groupby(rows, lambda row: (row.method, row.form)):
        points = [(row.prompts, getattr(row, field) / unit) for row in group]
        style = dict(color=COLOURS[method], linestyle='-' if form == OURS else '--', label=f'{method}, {form}')
        if method == LINEAR:
            ax.axhline(points[0][1], **style)
        else:
            ax.plot(*zip(*points, strict=True), marker='o', markersize=4, **style)
    ax.set_title(title, fontsize=10)


def _attention(ax: Axes, shares: Sequence[Share]) -> None:
    for model, group in groupby(shares, lambda share: share.model):
        points = [(one.prompts, 100 * one.share) for one in group]
        ax.plot(*zip(*points, strict=True), marker='o', markersize=4, label=model)
    even = sorted({(one.prompts, 100 * one.even) for one in shares})
    ax.plot(*zip(*even, strict=True), color='black', linestyle=':', label='if it were even')
    ax.set_title("prompts' share of VPT's attention, %", fontsize=10)
    ax.legend(fontsize=8)
