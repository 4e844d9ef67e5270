"""Mona as one operation with a backward pass of its own, which keeps little and computes the rest again."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from mmpeft.methods.affine import affine_gradients
from mmpeft.methods.depthwise import convolution, convolution_backward
from mmpeft.methods.mona_weights import Parameters, Weights
from mmpeft.operators import dropout_mask, gelu_backward_, layer_norm, layer_norm_backward


class MonaFunction(torch.autograd.Function):
    """``x + up(dropout(gelu(matrix(conv(down(norm(x) + gammax x))))))`` for ``x`` and the ``Parameters`` one by one.

    The backward pass is given x, the input and the output of the convolution, the input of GELU, what dropout kept, and
    the composed weights, which are small; it computes the norm again. With ``lean`` it is given the output of the
    convolution, the state of the random generator and, instead of x, the result, which the next layer keeps anyway: x
    is the result without what was added to it. Where x is of half precision, in which that loses too much, it is given
    x itself.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, hw_shape: tuple[int, int], eps: float, dropout: float, lean: bool, *parameters):
        device = x.device.type
        autocast = torch.is_autocast_enabled(device)
        ctx.dtype = torch.get_autocast_dtype(device) if autocast else parameters[-1].dtype
        ctx.hw_shape, ctx.eps, ctx.dropout = hw_shape, eps, dropout
        ctx.from_result = lean and x.dtype in (torch.float32, torch.float64)
        with torch.autocast(device, enabled=False):
            composed = Parameters(*parameters).composed()
            w = composed.prepared(ctx.dtype, dropout)
            y = F.linear(_mixed(x, w, eps)[0].to(ctx.dtype), w.down, w.down_bias)
            convolved = convolution(y, hw_shape, w.kernel, w.kernel_bias)
            ctx.random_state = _random_state(x) if lean and dropout else None
            kept = draw(convolved, dropout) if dropout else None
            active = F.linear(convolved, w.matrix, w.matrix_bias)
            out = _projected_onto(x, _hidden(active, kept), w)
        if lean:
            y = active = kept = None
        ctx.save_for_backward(out if ctx.from_result else x, y, convolved, active, kept, *composed, *parameters)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor):
        x, y, convolved, active, kept, *weights = ctx.saved_tensors
        composed, parameters = Weights(*weights[: len(Weights._fields)]), Parameters(*weights[len(Weights._fields) :])
        with torch.autocast(x.device.type, enabled=False):
            w = composed.prepared(ctx.dtype, ctx.dropout)
            if ctx.random_state is not None:
                kept = _redraw(convolved, ctx.dropout, ctx.random_state)
            kept = None if kept is None else kept.to(ctx.dtype)
            if active is None:
                active = F.linear(convolved, w.matrix, w.matrix_bias)
            hidden = _hidden(active, kept)
            if ctx.from_result:
                x = _projected_onto(x, hidden, w, sign=-1)
            grad_up, grad_up_bias, g = _linear_backward(grad.to(ctx.dtype), hidden, w.up)
            g = g if kept is None else g.mul_(kept)
            gelu_backward_(g, active)
            grad_matrix, grad_matrix_bias, g = _linear_backward(g, convolved, w.matrix, hidden)
            mixed, mean, rstd = _mixed(x, w, ctx.eps)
            mixed = mixed.to(ctx.dtype)
            if y is None:
                y = F.linear(mixed, w.down, w.down_bias)
            grad_kernel, g = convolution_backward(g, y, ctx.hw_shape, w.kernel)
            grad_down, grad_down_bias, g = _linear_backward(g, mixed, w.down, mixed)
            x, g = x.to(w.norm.dtype), g.to(w.norm.dtype)
            grad_gammax, _ = affine_gradients(g, x, torch.ones_like(w.gammax), torch.zeros_like(w.gammax))
            grad_x, grad_norm, grad_norm_bias = layer_norm_backward(
                g, x, mean, rstd, w.norm, w.norm_bias, ctx.needs_input_grad[0]
            )
            if grad_x is not None:
                grad_x = grad_x.addcmul_(g, w.gammax).add_(grad)
        grads = Weights(
            grad_norm,
            grad_norm_bias,
            grad_gammax,
            grad_down,
            grad_down_bias,
            grad_kernel,
            grad_matrix_bias @ w.matrix,  # the sum of its gradients, which the matrix gave
            grad_matrix,
            grad_matrix_bias,
            grad_up / (1 - ctx.dropout) if ctx.dropout else grad_up,
            grad_up_bias,
        )
        return grad_x, None, None, None, None, *parameters.gradients(grads)


def _mixed(x: Tensor, w: Weights, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """The input of the down projection, and the statistics of the norm."""
    x = x.to(w.norm.dtype)
    normed, mean, rstd = layer_norm(x, w.norm, w.norm_bias, eps)
    return normed.addcmul_(x, w.gammax), mean, rstd


def _hidden(active: Tensor, kept: Tensor | None) -> Tensor:
    """What the up projection reads."""
    hidden = F.gelu(active)
    return hidden if kept is None else hidden.mul_(kept)


def _projected_onto(x: Tensor, hidden: Tensor, w: Weights, sign: int = 1) -> Tensor:
    """``x`` and what the up projection makes of ``hidden``, or without that."""
    if x.dtype != hidden.dtype or not x.is_contiguous():
        return torch.add(x, F.linear(hidden, w.up, w.up_bias), alpha=sign)
    out = torch.add(x, w.up_bias, alpha=sign)
    out.flatten(0, 1).addmm_(hidden.flatten(0, 1), w.up.T, alpha=sign)
    return out


def _linear_backward(
    grad: Tensor, x: Tensor, weight: Tensor, into: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of weight, bias and input of a linear layer, the last in the memory of ``into``."""
    grad_weight = grad.flatten(0, 1).T @ x.flatten(0, 1)
    return grad_weight, grad.sum((0, 1)), torch.matmul(grad, weight, out=into)


def draw(y: Tensor, dropout: float) -> Tensor:
    """Which elements of ``y`` dropout keeps; on a CPU by 16 bits each, in a fifth of the time of ``F.dropout``."""
    if y.device.type != 'cpu':
        return dropout_mask(y, dropout)
    bits = torch.empty(-(-y.numel() // 4), dtype=torch.int64, device=y.device).random_(-(2**63), None).view(torch.int16)
    return bits[: y.numel()].view(y.shape) >= min(round(dropout * 2**16), 2**16 - 1) - 2**15


def _redraw(y: Tensor, dropout: float, state: Tensor) -> Tensor:
    """What ``draw`` gave when the generator was in ``state``; the generator is left as it is."""
    on_cpu = y.device.type == 'cpu'
    with torch.random.fork_rng([] if on_cpu else [y.device]):
        torch.set_rng_state(state) if on_cpu else torch.cuda.set_rng_state(state, y.device)
        return draw(y, dropout)


def _random_state(y: Tensor) -> Tensor:
    """The state of the generator that dropout on the device of ``y`` draws from."""
    return torch.get_rng_state() if y.device.type == 'cpu' else torch.cuda.get_rng_state(y.device)
