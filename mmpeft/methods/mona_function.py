"""Mona as one operation with a backward pass of its own, which keeps little and computes the rest again."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from mmpeft.forms import for_cpu
from mmpeft.methods.affine import affine_gradients
from mmpeft.methods.depthwise import convolution, convolution_backward
from mmpeft.methods.dropout import draw as draw
from mmpeft.methods.dropout import drop, masked, random_state, redraw
from mmpeft.methods.mona_weights import Weights
from mmpeft.operators import gelu_backward_, layer_norm, layer_norm_backward


class MonaFunction(torch.autograd.Function):
    """``x + up(dropout(gelu(matrix(conv(down(norm(x) + gammax x))))))`` for ``x`` and the ``Weights`` one by one.

    The backward pass is given x, the input and the output of the convolution, the input of GELU, and what dropout kept;
    it computes the norm again. With ``lean`` it is given the output of the convolution, the state of the random
    generator and, instead of x, the result, which the next layer keeps anyway: x is the result without what was added
    to it. Where x is of half precision, in which that loses too much, it is given x itself.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, hw_shape: tuple[int, int], eps: float, dropout: float, lean: bool, *weights):
        w = Weights(*weights)
        ctx.hw_shape, ctx.eps, ctx.dropout = hw_shape, eps, dropout
        ctx.from_result = lean and x.dtype in (torch.float32, torch.float64)
        with torch.autocast(x.device.type, enabled=False):
            y = _linear(_mixed(x, w, eps)[0].to(w.down.dtype), w.down, w.down_bias)
            convolved = convolution(y, hw_shape, w.kernel, w.kernel_bias)
            active = _linear(convolved, w.matrix, w.matrix_bias)
            ctx.random_state = random_state(active) if lean and dropout else None
            hidden, kept = drop(F.gelu(active), dropout) if dropout else (F.gelu(active), None)
            out = _projected_onto(x, hidden, w)
        if lean:
            y = active = kept = None
        ctx.save_for_backward(out if ctx.from_result else x, y, convolved, active, kept, *weights)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor):
        x, y, convolved, active, kept, *weights = ctx.saved_tensors
        w = Weights(*weights)
        trains = ctx.needs_input_grad[-1]
        with torch.autocast(x.device.type, enabled=False):
            if active is None:
                active = _linear(convolved, w.matrix, w.matrix_bias)
            if ctx.random_state is not None:
                kept = redraw(active, ctx.dropout, ctx.random_state)
            hidden = F.gelu(active) if trains or ctx.from_result else None
            if hidden is not None and kept is not None:
                hidden = masked(hidden, kept, ctx.dropout)
            if ctx.from_result:
                x = _projected_onto(x, hidden, w, sign=-1)
            mixed, mean, rstd = _mixed(x, w, ctx.eps)
            mixed = mixed.to(w.down.dtype)
            if y is None:
                y = _linear(mixed, w.down, w.down_bias)
            g, grad_up, grad_up_bias = _linear_backward(grad.to(w.up.dtype), hidden, w.up, trains)
            g = gelu_backward_(g if kept is None else masked(g, kept, ctx.dropout), active)
            g, grad_matrix, grad_matrix_bias = _linear_backward(g, convolved, w.matrix, trains, hidden)
            # The bias of the convolution has the gradients of its outputs, whose sum the matrix gives from its own.
            grad_kernel_bias = torch.mv(w.matrix.T, grad_matrix_bias) if trains else None
            g, grad_kernel = convolution_backward(g, y, ctx.hw_shape, w.kernel, trains)
            g, grad_down, grad_down_bias = _linear_backward(g, mixed, w.down, trains, mixed if trains else None)
            x, g = x.to(w.norm.dtype), g.to(w.norm.dtype)
            grad_x, grad_norm, grad_norm_bias = layer_norm_backward(
                g, x, mean, rstd, w.norm, w.norm_bias, ctx.needs_input_grad[0], trains
            )
            grad_gammax = _scale_gradient(g, x) if trains else None
            if grad_x is not None:
                grad_x = grad_x.addcmul_(g, w.gammax).add_(grad)
        grads = Weights(
            grad_norm,
            grad_norm_bias,
            grad_gammax,
            grad_down,
            grad_down_bias,
            grad_kernel,
            grad_kernel_bias,
            grad_matrix,
            grad_matrix_bias,
            grad_up,
            grad_up_bias,
        )
        return grad_x, None, None, None, None, *grads


def _mixed(x: Tensor, w: Weights, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """The input of the down projection, and the statistics of the norm."""
    x = x.to(w.norm.dtype)
    normed, mean, rstd = layer_norm(x, w.norm, w.norm_bias, eps)
    return normed.addcmul_(x, w.gammax), mean, rstd


def _projected_onto(x: Tensor, hidden: Tensor, w: Weights, sign: int = 1) -> Tensor:
    """``x`` and what the up projection makes of ``hidden``, or without that."""
    if x.dtype != hidden.dtype or not x.is_contiguous():
        return torch.add(x, _linear(hidden, w.up, w.up_bias), alpha=sign)
    out = torch.add(x, w.up_bias, alpha=sign)
    out.flatten(0, 1).addmm_(hidden.flatten(0, 1), w.up.T, alpha=sign)
    return out


def _linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """``F.linear`` in one operation however the tokens lie in memory."""
    return torch.addmm(bias, x.flatten(0, 1), weight.T).unflatten(0, x.shape[:2])


def _linear_backward(
    grad: Tensor, x: Tensor | None, weight: Tensor, trains: bool, into: Tensor | None = None
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Gradients of input, in the memory of ``into``, weight and bias of a linear layer."""
    rows = grad.flatten(0, 1)
    grad_weight = rows.T @ x.flatten(0, 1) if trains else None
    grad_bias = rows.sum(0) if trains else None
    grad_x = torch.mm(rows, weight, out=None if into is None else into.flatten(0, 1))
    return grad_x.unflatten(0, grad.shape[:2]), grad_weight, grad_bias


def _scale_gradient(grad: Tensor, x: Tensor) -> Tensor:
    """The gradient of a factor of each channel of ``x``; on a CPU in one pass. Shape: ``(..., C), (..., C) -> (C)``."""
    if not for_cpu(x):
        return (grad * x).flatten(0, -2).sum(0)
    one = x.new_ones(x.shape[-1])
    return affine_gradients(grad, x, one, torch.zeros_like(one))[0]
