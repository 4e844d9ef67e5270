"""Mona as one operation with a backward pass of its own, which keeps little and computes the rest again."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from mmpeft.methods.affine import affine_gradients
from mmpeft.methods.mona_weights import Parameters, Weights

aten = torch.ops.aten
# From this many tokens on, a CPU computes the gradient of the kernel by tiles of this size, some channels at a time.
LARGE_GRID = 4096
TILE = 8
CHANNELS = 8


class MonaFunction(torch.autograd.Function):
    """``x + up(dropout(gelu(matrix(conv(down(norm(x) + gammax x))))))`` for ``x`` and the ``Parameters`` one by one.

    The backward pass is given x, the input and the output of the convolution, the input of GELU, and what dropout
    kept; it computes the norm again. With ``lean`` it is given the output of the convolution, the state of the random
    generator and, instead of x, the result, which the next layer keeps anyway: x is the result without what was added
    to it. Where x is of half precision, in which that loses too much, it is given x itself.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, hw_shape: tuple[int, int], eps: float, dropout: float, lean: bool, *parameters):
        device = x.device.type
        autocast = torch.is_autocast_enabled(device)
        ctx.dtype = torch.get_autocast_dtype(device) if autocast else parameters[-1].dtype
        ctx.hw_shape, ctx.eps, ctx.dropout = hw_shape, eps, dropout
        ctx.from_result = lean and x.dtype in (torch.float32, torch.float64)
        with torch.autocast(device, enabled=False):
            w = Parameters(*parameters).composed().prepared(ctx.dtype, dropout)
            y = F.linear(_mixed(x, w, eps)[0].to(ctx.dtype), w.down, w.down_bias)
            convolved = _convolved(y, hw_shape, w)
            ctx.random_state = _generator(x).get_state() if lean and dropout else None
            kept = draw(convolved, dropout) if dropout else None
            active = F.linear(convolved, w.matrix, w.matrix_bias)
            branch = F.linear(_hidden(active, kept), w.up, w.up_bias)
            out = branch.add_(x) if branch.dtype == x.dtype else x + branch
        if lean:
            y = active = kept = None
        ctx.save_for_backward(out if ctx.from_result else x, y, convolved, active, kept, *parameters)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor):
        x, y, convolved, active, kept, *parameters = ctx.saved_tensors
        parameters = Parameters(*parameters)
        with torch.autocast(x.device.type, enabled=False):
            w = parameters.composed().prepared(ctx.dtype, ctx.dropout)
            if ctx.random_state is not None:
                kept = _redraw(convolved, ctx.dropout, ctx.random_state)
            if active is None:
                active = F.linear(convolved, w.matrix, w.matrix_bias)
            hidden = _hidden(active, kept)
            if ctx.from_result:
                x = x - F.linear(hidden, w.up, w.up_bias)
            grad_up, grad_up_bias, g = _linear_backward(grad.to(ctx.dtype), hidden, w.up)
            g = g if kept is None else g.mul_(kept)
            aten.gelu_backward.grad_input(g, active, grad_input=g)
            grad_matrix, grad_matrix_bias, g = _linear_backward(g, convolved, w.matrix, hidden)
            mixed, mean, rstd = _mixed(x, w, ctx.eps)
            mixed = mixed.to(ctx.dtype)
            if y is None:
                y = F.linear(mixed, w.down, w.down_bias)
            grad_kernel, grad_kernel_bias, g = _convolution_backward(g, y, ctx.hw_shape, w)
            grad_down, grad_down_bias, g = _linear_backward(g, mixed, w.down, mixed)
            x, g = x.to(w.norm.dtype), g.to(w.norm.dtype)
            grad_gammax, _ = affine_gradients(g, x, torch.ones_like(w.gammax), torch.zeros_like(w.gammax))
            wanted = [ctx.needs_input_grad[0], True, True]
            grad_x, grad_norm, grad_norm_bias = aten.native_layer_norm_backward(
                g, x, [x.shape[2]], mean, rstd, w.norm, w.norm_bias, wanted
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
            grad_kernel_bias,
            grad_matrix,
            grad_matrix_bias,
            grad_up / (1 - ctx.dropout) if ctx.dropout else grad_up,
            grad_up_bias,
        )
        return grad_x, None, None, None, None, *parameters.gradients(grads)


def _mixed(x: Tensor, w: Weights, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """The input of the down projection, and the statistics of the norm."""
    x = x.to(w.norm.dtype)
    normed, mean, rstd = torch.native_layer_norm(x, [x.shape[2]], w.norm, w.norm_bias, eps)
    return normed.addcmul_(x, w.gammax), mean, rstd


def _convolved(y: Tensor, hw_shape: tuple[int, int], w: Weights) -> Tensor:
    maps = F.conv2d(as_maps(y, hw_shape), w.kernel, w.kernel_bias, padding=3, groups=y.shape[2])
    return as_tokens(maps)


def _hidden(active: Tensor, kept: Tensor | None) -> Tensor:
    """What the up projection reads."""
    hidden = F.gelu(active)
    return hidden if kept is None else hidden.mul_(kept)


def _linear_backward(
    grad: Tensor, x: Tensor, weight: Tensor, into: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of weight, bias and input of a linear layer, the last in the memory of ``into``."""
    grad_weight = grad.flatten(0, 1).T @ x.flatten(0, 1)
    return grad_weight, grad.sum((0, 1)), torch.matmul(grad, weight, out=into)


def _convolution_backward(
    grad: Tensor, y: Tensor, hw_shape: tuple[int, int], w: Weights
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of kernel, bias and input of the depthwise convolution, for and as tokens."""
    grads, maps, groups = as_maps(grad, hw_shape), as_maps(y, hw_shape), y.shape[2]
    by_tiles = grad.device.type == 'cpu' and grad.shape[1] >= LARGE_GRID
    geometry = [1, 1], [3, 3], [1, 1], False, [0, 0], groups
    grad_y, grad_kernel, _ = aten.convolution_backward(
        grads, maps, w.kernel, [groups], *geometry, [True, not by_tiles, False]
    )
    if by_tiles:
        grad_kernel = torch.cat(
            [kernel_gradient(*part) for part in zip(grads.split(CHANNELS, 1), maps.split(CHANNELS, 1), strict=True)]
        )
    return grad_kernel, grad.sum((0, 1)), as_tokens(grad_y)


def kernel_gradient(grad: Tensor, y: Tensor) -> Tensor:
    """Gradient of a depthwise 7 x 7 kernel as products of tiles, which a CPU is quicker at than at the convolution.

    Of each channel, all TILE x TILE tiles of ``grad`` are multiplied with the windows of ``y`` that the kernel sees
    from them. The gradient at an offset is the sum of the products of all pairs that lie this far apart: a diagonal.

    Shape: ``(B, D, H, W), (B, D, H, W) -> (D, 1, 7, 7)``
    """
    batch, groups, height, width = y.shape
    window = TILE + 6
    rows, columns = -height % TILE, -width % TILE
    grad = F.pad(grad, (0, columns, 0, rows)) if rows or columns else grad
    padded = y.new_zeros(groups, batch, height + rows + 6, width + columns + 6)
    padded[:, :, 3 : 3 + height, 3 : 3 + width] = y.transpose(0, 1)
    tiles = grad.transpose(0, 1).unfold(2, TILE, TILE).unfold(3, TILE, TILE).reshape(groups, -1, TILE**2)
    windows = padded.unfold(2, window, TILE).unfold(3, window, TILE).reshape(groups, -1, window**2)
    products = tiles.transpose(1, 2) @ windows
    row = window**2
    strides = TILE**2 * row, window, 1, TILE * row + window, row + 1
    return products.as_strided((groups, 7, 7, TILE, TILE), strides).sum((3, 4)).unsqueeze(1)


def as_maps(y: Tensor, hw_shape: tuple[int, int]) -> Tensor:
    """Shape: ``(B, H W, D) -> (B, D, H, W)``, channels last in memory."""
    return y.transpose(1, 2).unflatten(2, hw_shape)


def as_tokens(maps: Tensor) -> Tensor:
    """Shape: ``(B, D, H, W) -> (B, H W, D)``."""
    return maps.flatten(2).transpose(1, 2)


def draw(y: Tensor, dropout: float) -> Tensor:
    """Which elements of ``y`` dropout keeps; on a CPU by 16 bits each, in a fifth of the time of ``F.dropout``."""
    if y.device.type != 'cpu':
        return torch.native_dropout(y, dropout, True)[1]
    bits = torch.empty(-(-y.numel() // 4), dtype=torch.int64).random_(-(2**63), None).view(torch.int16)
    return bits[: y.numel()].view(y.shape) >= min(round(dropout * 2**16), 2**16 - 1) - 2**15


def _redraw(y: Tensor, dropout: float, state: Tensor) -> Tensor:
    """What ``draw`` gave when the generator was in ``state``; the generator is left as it is."""
    generator = _generator(y)
    now = generator.get_state()
    generator.set_state(state)
    try:
        return draw(y, dropout)
    finally:
        generator.set_state(now)


def _generator(y: Tensor) -> torch.Generator:
    """The generator that dropout on the device of ``y`` draws from."""
    return torch.default_generator if y.device.type == 'cpu' else torch.cuda.default_generators[y.device.index]
