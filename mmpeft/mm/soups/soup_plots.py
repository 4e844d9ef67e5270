"""How a soup came about, as a picture."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes

from mmpeft.mm.reports.report_plots import BLUE, new_figure
from mmpeft.mm.soups.cooked import Cooked

GRAY = '#8a8a8a'


def draw_recipe(cooked: Cooked, path: Path) -> None:
    """The score of each candidate and that of the soup after it; of a learned soup also the mean shares."""
    steps, shares = cooked.soup.steps, cooked.soup.shares
    width = 3 + 0.7 * max(5, len(steps))
    figure = new_figure(width * (2 if shares else 1), 4.5)
    axes = figure.subplots(1, 2 if shares else 1, squeeze=False)[0]
    _draw_scores(axes[0], cooked)
    if shares:
        _draw_shares(axes[1], list(shares.values()))
        axes[1].set_title(f'shares in {len(shares)} groups of tensors: mean, least and most', fontsize=11)
    for ax in axes:
        ax.set_xticks(range(1, len(steps) + 1), [_short(s.path) for s in steps], rotation=30, ha='right', fontsize=8)
        ax.grid(alpha=0.3)
        ax.set_axisbelow(True)
    figure.savefig(path, dpi=150)


def _draw_scores(ax: Axes, cooked: Cooked) -> None:
    steps, places = cooked.soup.steps, range(1, len(cooked.soup.steps) + 1)
    ax.scatter(places, [step.score for step in steps], color=GRAY, label='candidate alone', zorder=3)
    if cooked.recipe == 'greedy':
        kept = [next(s.soup_score for s in reversed(steps[:place]) if s.accepted) for place in places]
        ax.step(places, kept, where='post', color=BLUE, linewidth=1.5)
        for accepted, marker, label in ((True, 'o', 'accepted'), (False, 'x', 'rejected')):
            chosen = [(place, s.soup_score) for place, s in zip(places, steps, strict=True) if s.accepted is accepted]
            xs, ys = [place for place, _ in chosen], [score for _, score in chosen]
            ax.plot(xs, ys, marker, color=BLUE, markersize=8, zorder=4, label=f'soup with it, {label}')
    else:
        ax.axhline(cooked.soup.score, color=BLUE, linewidth=1.5, label=f'{cooked.recipe} soup')
    ax.set_ylabel(cooked.metric)
    ax.set_title(str(cooked), fontsize=11)
    ax.margins(y=0.15)
    ax.legend(fontsize=8, loc='lower left')


def _draw_shares(ax: Axes, shares: Sequence[Sequence[float]]) -> None:
    for place, values in enumerate(zip(*shares, strict=True), 1):
        ax.bar(place, sum(values) / len(values), 0.6, color=BLUE)
        ax.plot([place, place], [min(values), max(values)], color='black', linewidth=1)
    ax.axhline(1 / len(shares[0]), color=GRAY, linewidth=1, linestyle='--')


def _short(path: str) -> str:
    """The run that a file is of, or the file itself where all lie in one folder."""
    file = Path(path)
    return file.parent.name if file.stem.startswith('adapters_') else file.stem
