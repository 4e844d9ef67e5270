"""The depthwise convolution as an operator that compilers call and do not look into."""

import torch
from torch import Tensor

from mmpeft.methods.depthwise import convolution, convolution_backward


@torch.library.custom_op('mmpeft::depthwise', mutates_args=())
def depthwise(y: Tensor, height: int, width: int, kernel: Tensor, bias: Tensor) -> Tensor:
    """The convolution of the tokens of all images, one after the other.

    Shape: ``(B H W, D), (D, 1, 7, 7), (D) -> (B H W, D)``
    """
    hw_shape = height, width
    return convolution(_as_images(y, hw_shape), hw_shape, kernel, bias).flatten(0, 1).contiguous()


@torch.library.custom_op('mmpeft::depthwise_backward', mutates_args=())
def depthwise_backward(
    grad: Tensor, y: Tensor, height: int, width: int, kernel: Tensor, trains: bool
) -> tuple[Tensor, Tensor]:
    """Gradients of input and kernel; that of a frozen kernel is empty."""
    hw_shape = height, width
    images = _as_images(grad, hw_shape), _as_images(y, hw_shape)
    grad_y, grad_kernel = convolution_backward(*images, hw_shape, kernel, trains)
    grad_kernel = kernel.new_empty(0) if grad_kernel is None else grad_kernel.to(kernel.dtype).contiguous()
    return grad_y.flatten(0, 1).contiguous(), grad_kernel


def _as_images(rows: Tensor, hw_shape: tuple[int, int]) -> Tensor:
    return rows.unflatten(0, (-1, hw_shape[0] * hw_shape[1]))


@depthwise.register_fake
def _(y: Tensor, height: int, width: int, kernel: Tensor, bias: Tensor) -> Tensor:
    return torch.empty_like(y, memory_format=torch.contiguous_format)


@depthwise_backward.register_fake
def _(grad: Tensor, y: Tensor, height: int, width: int, kernel: Tensor, trains: bool) -> tuple[Tensor, Tensor]:
    grad_kernel = torch.empty_like(kernel, memory_format=torch.contiguous_format) if trains else kernel.new_empty(0)
    return torch.empty_like(y, memory_format=torch.contiguous_format), grad_kernel


def _keep(ctx, inputs: tuple, output: Tensor) -> None:
    y, ctx.height, ctx.width, kernel, _ = inputs
    ctx.save_for_backward(y, kernel)


def _backward(ctx, grad: Tensor):
    y, kernel = ctx.saved_tensors
    trains = ctx.needs_input_grad[3]
    grad_y, grad_kernel = depthwise_backward(grad, y, ctx.height, ctx.width, kernel, trains)
    return grad_y, None, None, grad_kernel if trains else None, grad.sum(0) if ctx.needs_input_grad[4] else None


depthwise.register_autograd(_backward, setup_context=_keep)
