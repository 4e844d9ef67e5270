"""What is made of weights of many adapters in one operation: casts, and products with numbers."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mmpeft.operators import copies_in, products


def for_products(x: Tensor) -> Tensor:
    """``x`` as it is multiplied: in the dtype of autocast where that is on."""
    device = x.device.type
    changes = torch.is_autocast_enabled(device) and x.dtype != torch.float64
    return x.to(torch.get_autocast_dtype(device)) if changes else x


def as_autocast_would(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The tensors in the dtype of autocast where it is on, else themselves; gradients flow to them.

    Autocast makes a copy of each, and autograd a copy of each gradient; this makes all at once.
    """
    device = tensors[0].device.type
    dtype = torch.get_autocast_dtype(device)
    if not torch.is_autocast_enabled(device) or tensors[0].dtype in (dtype, torch.float64):
        return [*tensors]
    return [*Casting.apply(dtype, *tensors)]


class Casting(torch.autograd.Function):
    """Copies of tensors in another dtype."""

    @staticmethod
    def forward(ctx: Any, dtype: torch.dtype, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.dtype = tensors[0].dtype
        ctx.set_materialize_grads(False)
        return tuple(copies_in(dtype, tensors))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None):
        found = iter(copies_in(ctx.dtype, [grad for grad in grads if grad is not None]))
        return None, *(None if grad is None else next(found) for grad in grads)


class Multiplication(torch.autograd.Function):
    """Tensors, each times a number."""

    @staticmethod
    def forward(ctx: Any, numbers: Sequence[float], *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.numbers = numbers
        ctx.set_materialize_grads(False)
        return tuple(products(tensors, numbers))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None):
        used = [(grad, number) for grad, number in zip(grads, ctx.numbers, strict=True) if grad is not None]
        found = iter(products(*zip(*used, strict=True)) if used else ())
        return None, *(None if grad is None else next(found) for grad in grads)
