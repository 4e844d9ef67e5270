"""The depthwise 7 x 7 convolution of tokens on their grid, and its gradients."""

import math
from functools import reduce

import torch
import torch.nn.functional as F
from torch import Tensor

from mmpeft.forms import for_cpu
from mmpeft.operators import depthwise_backward

PADDING = 3
OFFSETS = 2 * PADDING + 1
# A CPU computes the gradient of the kernel from lanes of this many values,
LANE = 8
# of so many images at a time that there are about this many tokens, whose copies stay in its caches.
TOKENS = 2048


def convolution(y: Tensor, hw_shape: tuple[int, int], kernel: Tensor, bias: Tensor) -> Tensor:
    """The convolution, padded with zeros.

    Shape: ``(B, H W, D), (H, W), (D, 1, 7, 7), (D) -> (B, H W, D)``
    """
    return _as_tokens(F.conv2d(_as_maps(y, hw_shape), kernel, bias, padding=PADDING, groups=y.shape[2]))


def convolution_backward(
    grad: Tensor, y: Tensor, hw_shape: tuple[int, int], kernel: Tensor, trains: bool = True
) -> tuple[Tensor, Tensor | None]:
    """Gradients of input and, where it trains, kernel.

    Shape: ``(B, H W, D), (B, H W, D), (H, W), (D, 1, 7, 7) -> (B, H W, D), (D, 1, 7, 7)``
    """
    by_lanes = trains and for_cpu(grad)
    maps = _as_maps(grad, hw_shape), _as_maps(y, hw_shape)
    grad_y, grad_kernel = depthwise_backward(*maps, kernel, PADDING, needs_kernel=trains and not by_lanes)
    if by_lanes:
        images = max(1, TOKENS // y.shape[1])
        parts = zip(grad.split(images), y.split(images), strict=True)
        grad_kernel = reduce(torch.add, (kernel_gradient(*part, hw_shape) for part in parts))
    return _as_tokens(grad_y), grad_kernel


def kernel_gradient(grad: Tensor, y: Tensor, hw_shape: tuple[int, int]) -> Tensor:
    """Gradient of the kernel as products of lanes, which a CPU is quicker at than at the convolution.

    Of each channel, the rows of all maps lie behind each other on a line, with zeros around and between them. The
    gradient at (i, j) is the sum over this line of ``grad`` times what of ``y`` lies i rows and j places further on.
    Cut into lanes, that is for each i a product of all lanes of ``grad`` and the windows of ``y`` that j reaches from
    them, and for each j a sum of those of its entries that lie j places apart: a diagonal.

    Shape: ``(B, H W, D), (B, H W, D), (H, W) -> (D, 1, 7, 7)``, in fp32 at least.
    """
    (batch, _, groups), (height, width) = y.shape, hw_shape
    dtype = torch.promote_types(y.dtype, torch.float32)
    lanes = -(-(width + 2 * PADDING) // LANE)
    grid = batch, height + 2 * PADDING, lanes * LANE
    line, window = math.prod(grid), LANE + 2 * PADDING

    y_line = y.new_zeros(groups, line + LANE, dtype=dtype)
    grad_line = y.new_zeros(groups, line, dtype=dtype)
    y_grid = y_line[:, :line].unflatten(1, grid)[:, :, PADDING : PADDING + height, PADDING : PADDING + width]
    grad_grid = grad_line.unflatten(1, grid)[:, :, :height, :width]
    step = max(1, TOKENS // (batch * width))
    for into, tokens in ((y_grid, y), (grad_grid, grad)):
        maps = _as_maps(tokens, hw_shape).transpose(0, 1)
        for part, values in zip(into.split(step, 2), maps.split(step, 2), strict=True):
            part.copy_(values)
    windows = y_line.unfold(1, window, LANE).contiguous()
    used = line // LANE - 2 * PADDING * lanes
    cut = grad_line.unflatten(1, (-1, LANE))[:, :used].transpose(1, 2)
    products = y.new_empty(OFFSETS, groups, LANE, window, dtype=dtype)
    for i in range(OFFSETS):
        torch.bmm(cut, windows[:, i * lanes : i * lanes + used], out=products[i])
    group, row, *_ = products.stride()
    return products.as_strided((groups, OFFSETS, OFFSETS, LANE), (row, group, 1, window + 1)).sum(3).unsqueeze(1)


def _as_maps(y: Tensor, hw_shape: tuple[int, int]) -> Tensor:
    """Shape: ``(B, H W, D) -> (B, D, H, W)``, channels last in memory."""
    return y.transpose(1, 2).unflatten(2, hw_shape)


def _as_tokens(maps: Tensor) -> Tensor:
    """Shape: ``(B, D, H, W) -> (B, H W, D)``."""
    return maps.flatten(2).transpose(1, 2)
