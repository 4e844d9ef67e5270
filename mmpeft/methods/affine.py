"""Gradients of a scale and a shift of channels."""

import torch
from torch import Tensor


def affine_gradients(grad: Tensor, out: Tensor, scale: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of scale and shift in ``out = x * scale + shift``, in one pass over ``grad`` and ``out``.

    They are the gradients of weight and bias of a batch norm whose mean is the shift and whose deviation is the scale.

    Shape: ``(..., C), (..., C), (C), (C) -> (C), (C)``
    """
    maps = (tensor.flatten(0, -2).T[None, :, :, None] for tensor in (grad, out))
    return torch.ops.aten.native_batch_norm_backward(
        *maps, scale, None, None, shift, 1 / scale, True, 0.0, [False, True, True]
    )[1:]
