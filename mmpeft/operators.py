"""Operators of torch that have no public name, for backward passes written by hand; each in one place.

Autograd calls them itself. Their plain forms, which differentiate what is public, are in tests/test_operators.py.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

aten = torch.ops.aten


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """Layer norm over the last axis, and the mean and the inverse deviation of each row.

    The statistics are those that ``layer_norm_backward`` reads on the same device: in half precision on a GPU they are
    in fp32, on a CPU in the dtype of the weight.

    Shape: ``(..., C), (C), (C) -> (..., C), (..., 1), (..., 1)``
    """
    return torch.native_layer_norm(x, x.shape[-1:], weight, bias, eps)


def layer_norm_backward(
    grad: Tensor,
    x: Tensor,
    mean: Tensor,
    rstd: Tensor,
    weight: Tensor,
    bias: Tensor,
    needs_x: bool = True,
    trains: bool = True,
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of the input, the weight and the bias of ``layer_norm``; the last two together or not at all.

    Shape: ``(..., C), (..., C), (..., 1), (..., 1), (C), (C) -> (..., C), (C), (C)``
    """
    return aten.native_layer_norm_backward(grad, x, x.shape[-1:], mean, rstd, weight, bias, [needs_x, trains, trains])


def dtype_of_sums(x: Tensor) -> torch.dtype:
    """That in which many values of ``x`` are added."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def batch_norm_backward(grad: Tensor, x: Tensor, mean: Tensor, rstd: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of weight and bias of a batch norm with this mean and inverse deviation, in one pass over both tensors.

    Beside half precision, weight and statistics are given in fp32, as which CUDA's kernel reads them whatever they are.

    Shape: ``(..., C), (..., C), (C), (C), (C) -> (C), (C)``
    """
    mean, rstd, weight = (tensor.to(dtype_of_sums(x)) for tensor in (mean, rstd, weight))
    if not x.numel():  # of no rows the kernel makes no sums
        return torch.zeros_like(weight), torch.zeros_like(weight)
    # As maps of height 1 and width 1 that are channels last in memory, both: a CPU's kernel asks how one of them lies.
    maps = (tensor.flatten(0, -2).contiguous().T[None, :, :, None] for tensor in (grad, x))
    wanted = [False, True, True]
    return aten.native_batch_norm_backward(*maps, weight, None, None, mean, rstd, True, 0.0, wanted)[1:]


def gelu_backward_(grad: Tensor, x: Tensor) -> Tensor:
    """The gradient of the input of GELU, in the memory of ``grad``. Shape: ``(...), (...) -> (...)``."""
    return aten.gelu_backward.grad_input(grad, x, grad_input=grad)


def softmax_backward(grad: Tensor, y: Tensor) -> Tensor:
    """The gradient of the input of a softmax over the last axis whose output is ``y``. Shape: ``(...) -> (...)``."""
    return torch._softmax_backward_data(grad, y, -1, y.dtype)


def softmax_backward_(grad: Tensor, y: Tensor) -> Tensor:
    """The same, in the memory of ``grad``."""
    return aten._softmax_backward_data.out(grad, y, -1, grad.dtype, grad_input=grad)


def depthwise_backward(
    grad: Tensor, x: Tensor, kernel: Tensor, padding: int, needs_kernel: bool
) -> tuple[Tensor, Tensor | None]:
    """Gradients of the input and the kernel of a depthwise convolution of stride 1.

    Shape: ``(B, D, H, W), (B, D, H, W), (D, 1, K, K) -> (B, D, H, W), (D, 1, K, K)``
    """
    geometry = [1, 1], [padding] * 2, [1, 1], False, [0, 0], len(kernel)
    wanted = [True, needs_kernel, False]
    return aten.convolution_backward(grad, x, kernel, [len(kernel)], *geometry, wanted)[:2]


def dropout_mask(like: Tensor, dropout: float) -> Tensor:
    """Which elements dropout keeps, of the shape and on the device of ``like``, drawn as ``F.dropout`` draws there.

    Shape: ``(...) -> (...)`` of bool, contiguous: what is drawn does not depend on how ``like`` lies in memory.
    """
    drawn = like if like.is_contiguous() else like.new_empty(like.shape)
    return torch.native_dropout(drawn, dropout, True)[1]


def dropout(x: Tensor, probability: float) -> tuple[Tensor, Tensor]:
    """Dropout in training, and which elements it keeps. Shape: ``(...) -> (...), (...)`` of bool."""
    return torch.native_dropout(x, probability, True)


def dropout_backward(grad: Tensor, kept: Tensor, probability: float) -> Tensor:
    """The gradient of the input of ``dropout``: what is kept, divided by its share.

    Shape: ``(...), (...) of bool -> (...)``
    """
    return aten.native_dropout_backward(grad, kept, 1 / (1 - probability))


def copies_in(dtype: torch.dtype, tensors: Sequence[Tensor]) -> list[Tensor]:
    """Copies of tensors in a dtype, in one operation."""
    copies = [torch.empty_like(tensor, dtype=dtype) for tensor in tensors]
    if copies:
        torch._foreach_copy_(copies, tensors)
    return copies


def products(a: Sequence[Tensor], b: Sequence[Tensor] | Sequence[float]) -> list[Tensor]:
    """The product of each tensor and tensor or number, in one operation."""
    return torch._foreach_mul(a, b)


def add_products_(to: Sequence[Tensor], a: Sequence[Tensor], b: Sequence[Tensor]) -> None:
    """Add to each tensor a product, in one operation."""
    torch._foreach_addcmul_(to, a, b)
