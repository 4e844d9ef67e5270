"""Tables of biases for pairs of places, from those for another grid."""

from math import isqrt

import numpy as np
import torch
from torch import Tensor

# Rows for pairs with the class token, at the end of a table.
EXTRA = 3


def resize_table(table: Tensor, grid: tuple[int, int]) -> Tensor:
    """BEiT's table of a square grid for another one: cubic splines through places that lie the closer the nearer.

    Shape: ``((2 S - 1)^2 + 3, heads) -> ((2 H - 1) (2 W - 1) + 3, heads)`` for a grid of S x S, and one of H x W.
    Source: Bao et al. 2021, arXiv:2106.08254; as in the authors' code, whose function SciPy 1.14 removed.
    """
    size = isqrt(len(table) - EXTRA)
    places = table[:-EXTRA].double().unflatten(0, (size, size))
    rows, columns = (_splines(size, 2 * side - 1).to(places) for side in grid)
    resized = torch.einsum('ri,cj,ijh->rch', rows, columns, places)
    return torch.cat((resized.flatten(0, 1).to(table), table[-EXTRA:]))


def _splines(old: int, new: int) -> Tensor:
    """The matrix of a cubic spline from ``old`` distances to ``new``. Shape: ``(new, old)``."""
    from scipy.interpolate import make_interp_spline

    steps = np.cumsum(_ratio(old // 2, new // 2) ** np.arange(old // 2))
    spline = make_interp_spline([*-steps[::-1], 0, *steps], np.eye(old))
    return torch.from_numpy(spline(np.clip(np.arange(new) - new // 2, -steps[-1], steps[-1])))


def _ratio(steps: int, reach: int) -> float:
    """By how much each of so many steps, of which the first is 1, is longer than the one before to reach so far."""
    low, high = 1.01, 1.5
    while high - low > 1e-6:
        middle = (low + high) / 2
        low, high = (low, middle) if (1 - middle**steps) / (1 - middle) > reach else (middle, high)
    return middle
