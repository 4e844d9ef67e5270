"""Pictures of a training on the digits: predictions beside ground truth, and the curves of loss and AP."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

WRONG = '#e6194b'
RIGHT = '#35d461'
TRUTH = '#ffffff'


@dataclass(frozen=True)
class Boxes:
    """Labelled boxes of one image, in pixels.

    Attributes:
        corners: Left, top, right, bottom, ``(N, 4)``.
        labels: Names of classes, N of them.
        scores: ``(N,)``; None for ground truth.
    """

    corners: np.ndarray
    labels: Sequence[str]
    scores: np.ndarray | None = None


@dataclass(frozen=True)
class Example:
    """An image (RGB, uint8), what is in it and what was found."""

    image: np.ndarray
    truth: Boxes
    found: Boxes


def draw_examples(examples: Sequence[Example], path: Path, title: str) -> None:
    """Draw each image twice, with its ground truth and with what was found, two images a row."""
    rows = -(-len(examples) // 2)
    figure = _figure(14, 3.72 * rows + 0.95)
    axes = figure.subplots(rows, 4, squeeze=False)
    for number, (left, right) in enumerate(axes.reshape(-1, 2)):
        for ax in (left, right):
            ax.axis('off')
        if number < len(examples):
            _draw_example(left, right, examples[number])
    figure.suptitle(title, fontsize=15, y=1 - 0.22 / figure.get_figheight())
    figure.text(
        0.5,
        1 - 0.68 / figure.get_figheight(),
        'white: ground truth   green: found, with score   red, dashed: wrong class or nothing there',
        ha='center',
        fontsize=11,
    )
    figure.subplots_adjust(
        left=0.01, right=0.99, bottom=0.01, top=1 - 1.05 / figure.get_figheight(), wspace=0.03, hspace=0.12
    )
    figure.savefig(path, dpi=100)


def draw_curves(loss: Sequence[float], scores: Sequence[tuple[int, float, float]], path: Path, title: str) -> None:
    """Draw the training loss and the AP on the validation images.

    Args:
        loss: One value an iteration.
        scores: Iteration, AP and AP50 (0 to 1) of each validation.
        path: The file to write.
        title: Above both.
    """
    figure = _figure(12, 4.4)
    left, right = figure.subplots(1, 2)
    iterations = np.arange(1, len(loss) + 1)
    left.plot(iterations, loss, color='#9ecae1', linewidth=0.8, label='each iteration')
    width = max(1, len(loss) // 20)
    if len(loss) > width:
        smooth = np.convolve(loss, np.ones(width) / width, 'valid')
        left.plot(iterations[width - 1 :], smooth, color='#08519c', linewidth=2, label=f'mean of {width}')
    left.set(title='training loss', xlabel='iteration', ylim=(0, None))
    left.legend(frameon=False)
    at, ap, ap50 = zip(*scores, strict=True)
    for values, name, colour in ((ap50, 'AP50', '#fdae6b'), (ap, 'AP', '#d94801')):
        right.plot(at, 100 * np.asarray(values), 'o-', color=colour, label=name)
        right.annotate(
            f'{100 * values[-1]:.1f}', (at[-1], 100 * values[-1]), (6, -4), textcoords='offset points', color=colour
        )
    right.set(title='boxes on the validation images', xlabel='iteration', ylabel='AP', xlim=(0, None), ylim=(0, 100))
    right.margins(x=0.08)
    right.legend(frameon=False, loc='upper left')
    for ax in (left, right):
        ax.grid(alpha=0.3)
        ax.spines[['top', 'right']].set_visible(False)
    figure.suptitle(title, fontsize=14)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def draw_panels(panels: Sequence[tuple[str, np.ndarray]], path: Path) -> None:
    """Draw images (RGB, uint8) side by side, each with its title above."""
    height, width = panels[0][1].shape[:2]
    figure = _figure(5 * len(panels), 5 * height / width + 0.6)
    for ax, (title, image) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        ax.imshow(image)
        ax.set_title(title, fontsize=11, wrap=True)
        ax.axis('off')
    figure.subplots_adjust(left=0.01, right=0.99, bottom=0.01, top=1 - 0.55 / figure.get_figheight(), wspace=0.03)
    figure.savefig(path, dpi=150)


def judge(truth: Boxes, found: Boxes, threshold: float = 0.5) -> np.ndarray:
    """Which of the found boxes are right: the class and the place (IoU) of an object that no better one took."""
    right = np.zeros(len(found.corners), bool)
    overlaps = _overlaps(found.corners, truth.corners)
    free = set(range(len(truth.corners)))
    for number in np.argsort(-found.scores, kind='stable'):
        fits = [t for t in free if truth.labels[t] == found.labels[number] and overlaps[number, t] >= threshold]
        if fits:
            right[number] = True
            free.remove(max(fits, key=lambda t: overlaps[number, t]))
    return right


def _draw_example(left: Axes, right: Axes, example: Example) -> None:
    left.imshow(example.image)
    right.imshow(example.image)
    for corners, label in zip(example.truth.corners, example.truth.labels, strict=True):
        _draw_box(left, corners, label, TRUTH)
    correct = judge(example.truth, example.found)
    for corners, label, score, good in zip(
        example.found.corners, example.found.labels, example.found.scores, correct, strict=True
    ):
        _draw_box(right, corners, f'{label}  {score:.2f}', RIGHT if good else WRONG, '-' if good else '--')
    left.set_title('ground truth', fontsize=11)
    wrong = len(correct) - correct.sum()
    right.set_title(
        f'{correct.sum()} of {len(example.truth.corners)} found' + (f', {wrong} wrong' if wrong else ''), fontsize=11
    )


def _draw_box(ax: Axes, corners: np.ndarray, text: str, colour: str, style: str = '-') -> None:
    left, top, right, bottom = corners
    ax.add_patch(
        Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor='black', linewidth=3.2, alpha=0.55)
    )
    ax.add_patch(
        Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor=colour, linewidth=1.8, linestyle=style)
    )
    above = top > 14  # the label stands above the box, or inside it at the top of the image
    beyond = left + 8 * len(text) > ax.get_xlim()[1]
    ax.text(
        right if beyond else left,
        top - 2 if above else top + 2,
        text,
        ha='right' if beyond else 'left',
        va='bottom' if above else 'top',
        fontsize=9,
        fontweight='bold',
        color='black' if colour != WRONG else 'white',
        bbox=dict(facecolor=colour, edgecolor='none', pad=1.2, alpha=0.9),
        clip_on=True,
    )


def _overlaps(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """IoU of each box of the one with each of the other."""
    top_left = np.maximum(one[:, None, :2], other[None, :, :2])
    bottom_right = np.minimum(one[:, None, 2:], other[None, :, 2:])
    shared = np.clip(bottom_right - top_left, 0, None).prod(-1)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(-1) for boxes in (one, other)]
    return shared / np.maximum(areas[0][:, None] + areas[1][None] - shared, 1e-9)


def _figure(width: float, height: float) -> Figure:
    """A figure that needs no screen and leaves matplotlib's global state alone."""
    with matplotlib.rc_context({'font.family': 'DejaVu Sans'}):
        figure = Figure(figsize=(width, height), facecolor='white')
    FigureCanvasAgg(figure)
    return figure
