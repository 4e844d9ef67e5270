"""A picture of the similarities of ``mmpeft.mm.reports.features``."""

import re
from pathlib import Path

from mmpeft.mm.reports.features import BASE, Similarities
from mmpeft.mm.reports.report_plots import new_figure


def draw_similarities(found: Similarities, path: Path) -> None:
    """A line for each pair of models over the blocks; pairs of trained ones are dashed."""
    figure = new_figure(4 + 0.28 * max(16, len(found.blocks)), 4.5)
    ax = figure.subplots()
    places = ['.'.join(re.findall(r'\d+', name)) for name in found.blocks]
    for (a, b), values in found.values.items():
        label, style = (b, '-') if a == BASE else (f'{a} / {b}', '--')
        ax.plot(places, values, style, label=label, marker='o', markersize=4, linewidth=1.5)
    ax.set_title(f'Similarity of features to those of the {BASE} model (dashed: of two trained ones)', fontsize=10)
    ax.set_xlabel('block')
    ax.set_ylabel('cosine similarity')
    ax.tick_params('x', labelsize=8)
    ax.grid(alpha=0.3)
    ax.legend(fontsize=8)
    figure.savefig(path, dpi=150)
