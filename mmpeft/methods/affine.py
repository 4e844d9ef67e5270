"""Gradients of a scale and a shift of channels."""

from functools import lru_cache

import torch
from torch import Tensor

from mmpeft.operators import batch_norm_backward, dtype_of_sums


def affine_gradients(grad: Tensor, out: Tensor, scale: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of scale and shift in ``out = x * scale + shift``, in one pass over ``grad`` and ``out``.

    They are the gradients of weight and bias of a batch norm whose mean is the shift and whose deviation is the scale.

    Shape: ``(..., C), (..., C), (C), (C) -> (C), (C)``
    """
    return batch_norm_backward(grad, out, shift, 1 / scale.to(dtype_of_sums(scale)), scale)


def sums(grad: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """The sums of ``grad * x`` and of ``grad`` over all axes but the last, in one pass over both.

    Shape: ``(..., C), (..., C) -> (C), (C)``
    """
    # Tensors without values, for which costs are counted, are not kept for other passes.
    make = _zeros_and_ones if type(x) is Tensor else _zeros_and_ones.__wrapped__
    zeros, ones = make(x.shape[-1], dtype_of_sums(x), x.device)
    return batch_norm_backward(grad, x, zeros, ones, ones)


@lru_cache(maxsize=64)
def _zeros_and_ones(size: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    return torch.zeros(size, dtype=dtype, device=device), torch.ones(size, dtype=dtype, device=device)
