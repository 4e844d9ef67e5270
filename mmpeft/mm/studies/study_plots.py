"""Pictures of a study, each with the spread over seeds."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev

from matplotlib.axes import Axes

from mmpeft.mm.reports.report_plots import new_figure
from mmpeft.mm.studies.outcomes import Outcome, Row

DPI = 80


def draw_scores(rows: Sequence[Row], path: Path) -> None:
    """The mean score of each method against its trained parameters, with one deviation up and down."""
    figure = new_figure(7, 4.5)
    ax = figure.subplots()
    shown = [row for row in rows if row.score is not None]
    by_size = sorted(shown, key=lambda row: row.trainable)
    for number, row in enumerate(shown):
        at = row.trainable or min(other.trainable for other in rows if other.trainable) / 3
        ax.errorbar(at, row.score, row.deviation or 0, marker='o', capsize=3, color=f'C{number}')
        name = row.method if row.trainable else f'{row.method} (none trained)'
        side = (4, -11)[by_size.index(row) % 2]  # neighbours do not write over each other
        ax.annotate(name, (at, row.score), xytext=(6, side), textcoords='offset points', fontsize=8)
    ax.set_xscale('log')
    ax.set_xlabel('trained parameters of the backbone, M')
    ax.margins(0.15)
    _finish(ax, f'{rows[0].metric}, test', path)


def draw_curves(curves: Mapping[Outcome, Sequence[tuple[int, float]]], metric: str, path: Path) -> None:
    """The mean score of each method on held-out images while it trained, and the range of its seeds' deviation."""
    largest = max((outcome.fraction for outcome in curves), default=1)
    figure = new_figure(7, 4.5)
    ax = figure.subplots()
    for method in dict.fromkeys(outcome.method for outcome in curves):
        runs = [dict(c) for outcome, c in curves.items() if (outcome.method, outcome.fraction) == (method, largest)]
        steps = sorted(set.intersection(*map(set, runs))) if runs else []
        if steps:
            _band(ax, steps, [[run[step] for run in runs] for step in steps], method)
    ax.set_xlabel('step')
    ax.legend(fontsize=8)
    _finish(ax, f'{metric}, held out', path)


def draw_fractions(rows: Sequence[Row], path: Path) -> None:
    """The mean score of each method against the share of the training images."""
    figure = new_figure(7, 4.5)
    ax = figure.subplots()
    for method in dict.fromkeys(row.method for row in rows):
        own = [row for row in rows if row.method == method and row.score is not None]
        values = [row.score for row in own], [row.deviation or 0 for row in own]
        ax.errorbar([100 * row.fraction for row in own], *values, marker='o', capsize=3, label=method)
    ax.set_xscale('log')
    ticks = sorted({100 * row.fraction for row in rows})
    ax.set_xticks(ticks, [f'{tick:g} %' for tick in ticks], minor=False)
    ax.minorticks_off()
    ax.set_xlabel('share of the training images')
    ax.legend(fontsize=8)
    _finish(ax, f'{rows[0].metric}, test', path)


def _band(ax: Axes, steps: Sequence[int], values: Sequence[Sequence[float]], label: str) -> None:
    centers = [mean(own) for own in values]
    spreads = [stdev(own) if len(own) > 1 else 0 for own in values]
    (line,) = ax.plot(steps, centers, label=label, marker='o', markersize=3)
    low, high = ([c + side * s for c, s in zip(centers, spreads, strict=True)] for side in (-1, 1))
    ax.fill_between(steps, low, high, color=line.get_color(), alpha=0.15, linewidth=0)


def _finish(ax: Axes, label: str, path: Path) -> None:
    ax.set_ylabel(label)
    ax.grid(alpha=0.3)
    ax.figure.savefig(path, dpi=DPI)
