"""Pictures of tables."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mmpeft.measuring import Row
from mmpeft.mm.reports.costs import Costs
from mmpeft.mm.reports.runs import Run

PANELS = {
    'trainable': 'trainable in the backbone, M',
    'activations': 'activations of one image, MB',
    'optimizer': 'optimizer, MB',
    'file': 'file, MB',
}
RATIOS = {
    'step_of_full': 'training step / full fine-tuning',
    'saved_of_full': 'saved activations / full fine-tuning',
    'inference_of_stock': 'inference / stock backbone',
}
BLUE = '#2a6fbb'


def draw_costs(rows: Sequence[Costs], path: Path) -> None:
    """Bars of what each config costs, a panel for each kind of cost."""
    figure = new_figure(13, 1.2 + 0.35 * len(rows))
    axes = figure.subplots(1, len(PANELS), sharey=True)
    names = [row.name for row in rows]
    for ax, (field, title) in zip(axes, PANELS.items(), strict=True):
        _bars(ax, names, [getattr(row, field) for row in rows], title)
    axes[0].invert_yaxis()
    figure.savefig(path, dpi=150)


def draw_ratios(rows: Sequence[Row], path: Path) -> None:
    """Bars of what each model takes, as ratios to full fine-tuning and to the stock backbone."""
    figure = new_figure(13, 1.2 + 0.35 * len(rows))
    axes = figure.subplots(1, len(RATIOS), sharey=True)
    for ax, (field, title) in zip(axes, RATIOS.items(), strict=True):
        values = [getattr(row, field) for row in rows]
        _bars(ax, [row.name for row in rows], values, title)
        ax.axvline(1, color='0.7', linewidth=0.8, zorder=0)
    axes[0].invert_yaxis()
    figure.savefig(path, dpi=150)


def draw_scores(rows: Sequence[Costs], metric: str, path: Path) -> None:
    """The best score of each run against its trainable parameters in the backbone, as the papers draw it."""
    figure = new_figure(7, 5)
    ax = figure.subplots()
    for row in rows:
        ax.scatter(row.trainable, row.score, color=BLUE)
        ax.annotate(row.name, (row.trainable, row.score), xytext=(5, 4), textcoords='offset points', fontsize=8)
    ax.set_xlabel('trainable parameters in the backbone, M')
    ax.set_ylabel(metric)
    ax.margins(0.2)
    ax.grid(alpha=0.3)
    figure.savefig(path, dpi=150)


def draw_runs(runs: Sequence[Run], path: Path) -> None:
    """Losses and scores of several runs in one picture."""
    figure = new_figure(12, 4.5)
    left, right = figure.subplots(1, 2)
    for run in runs:
        left.plot(*zip(*run.losses, strict=True), label=run.name, linewidth=1) if run.losses else None
        right.plot(*zip(*run.scores, strict=True), label=run.name, marker='o', markersize=4) if run.scores else None
    for ax, title in ((left, 'loss'), (right, ', '.join(sorted({run.metric for run in runs})))):
        ax.set_title(title, fontsize=10)
        ax.set_xlabel('step')
        ax.grid(alpha=0.3)
        ax.legend(fontsize=8)
    figure.savefig(path, dpi=150)


def _bars(ax: Axes, names: Sequence[str], values: Sequence[float | None], title: str) -> None:
    """One bar a name; where there is no value, the name alone."""
    bars = ax.barh(names, [value or 0 for value in values], color=BLUE)
    labels = ['' if value is None else f'{value:,.0f}' if value >= 100 else f'{value:.3g}' for value in values]
    ax.bar_label(bars, labels, padding=3, fontsize=8)
    ax.set_title(title, fontsize=10)
    ax.margins(x=0.25)
    ax.spines[['top', 'right']].set_visible(False)


def new_figure(width: float, height: float) -> Figure:
    """A figure of this size in inches that needs no screen."""
    figure = Figure(figsize=(width, height), layout='constrained')
    FigureCanvasAgg(figure)
    return figure
