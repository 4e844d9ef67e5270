"""Gradients of a scale and a shift of channels."""

from torch import Tensor

from mmpeft.operators import batch_norm_backward


def affine_gradients(grad: Tensor, out: Tensor, scale: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of scale and shift in ``out = x * scale + shift``, in one pass over ``grad`` and ``out``.

    They are the gradients of weight and bias of a batch norm whose mean is the shift and whose deviation is the scale.

    Shape: ``(..., C), (..., C), (C), (C) -> (C), (C)``
    """
    return batch_norm_backward(grad, out, shift, scale, scale)
