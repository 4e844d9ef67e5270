"""Patch kernels of one size, from those of another."""

from functools import reduce

import torch
import torch.nn.functional as F
from torch import Tensor


def resample_kernel(kernel: Tensor, size: tuple[int, int]) -> Tensor:
    """Resample a patch kernel so that it answers a resized patch as ``kernel`` answers the patch itself.

    Exact for patches that grow, by bilinear interpolation; the least squares for those that shrink. The result has the
    same bits on every machine, because the fingerprint of a base is taken of them.

    Shape: ``(O, I, h, w) -> (O, I, *size)``
    Source: the pseudo-inverse resize of Beyer et al. 2023 (FlexiViT), arXiv:2212.08013.
    """
    rows, columns = (_pseudo_inverse(old, new) for old, new in zip(kernel.shape[2:], size, strict=True))
    return _stretch(_stretch(kernel.double().cpu(), columns).mT, rows).mT.to(kernel)


def _pseudo_inverse(old: int, new: int) -> Tensor:
    """That of resizing ``old`` pixels to ``new``, rounded: its last bits depend on the machine. Shape: (new, old)."""
    resized = F.interpolate(torch.eye(old, dtype=torch.float64)[:, None, :], new, mode='linear')[:, 0]
    return torch.linalg.pinv(resized).mul(2**24).round().div(2**24)


def _stretch(kernel: Tensor, weights: Tensor) -> Tensor:
    """``kernel @ weights.T``, added up in a fixed order."""
    return reduce(torch.add, (kernel[..., i, None] * weights[:, i] for i in range(kernel.shape[-1])))
