"""The parameters of Mona, and the fewer weights that it computes with, composed for many layers at once."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from mmpeft.operators import add_products_, copies_in, products


class Weights(NamedTuple):
    """What a layer computes with: one norm, one depthwise kernel, one matrix between two projections.

    Those of the norm are in the dtype of the parameters, the others in that of products.
    """

    norm: Tensor
    norm_bias: Tensor
    gammax: Tensor
    down: Tensor
    down_bias: Tensor
    kernel: Tensor
    kernel_bias: Tensor
    matrix: Tensor
    matrix_bias: Tensor
    up: Tensor
    up_bias: Tensor


class Parameters(NamedTuple):
    """What trains."""

    norm: Tensor
    norm_bias: Tensor
    gamma: Tensor
    gammax: Tensor
    down: Tensor
    down_bias: Tensor
    conv3: Tensor
    conv3_bias: Tensor
    conv5: Tensor
    conv5_bias: Tensor
    conv7: Tensor
    conv7_bias: Tensor
    pointwise: Tensor
    pointwise_bias: Tensor
    up: Tensor
    up_bias: Tensor

    def composed(self) -> Weights:
        """The weights of this layer alone, in operations that compilers and exporters know."""
        kernel = (F.pad(self.conv3, [2] * 4) + F.pad(self.conv5, [1] * 4) + self.conv7) / 3
        skip = torch.eye(len(self.pointwise), dtype=self.pointwise.dtype, device=self.pointwise.device)
        return Weights(
            norm=self.norm * self.gamma,
            norm_bias=self.norm_bias * self.gamma,
            gammax=self.gammax,
            down=self.down,
            down_bias=self.down_bias,
            kernel=kernel + F.pad(kernel.new_ones(1, 1, 1, 1), [3] * 4),
            kernel_bias=(self.conv3_bias + self.conv5_bias + self.conv7_bias) / 3,
            matrix=self.pointwise.flatten(1) + skip,
            matrix_bias=self.pointwise_bias,
            up=self.up,
            up_bias=self.up_bias,
        )


# What is composed, and what is only brought into the dtype of products.
COMPOSED = (
    'norm',
    'norm_bias',
    'gamma',
    'conv3',
    'conv3_bias',
    'conv5',
    'conv5_bias',
    'conv7',
    'conv7_bias',
    'pointwise',
)
CAST = ('down', 'down_bias', 'pointwise_bias', 'up', 'up_bias')


def compose(layers: Sequence[Parameters], dtype: torch.dtype) -> list[Weights]:
    """The weights of layers; those of layers with the same width of bottleneck are made together.

    Args:
        layers: The parameters of each.
        dtype: That of products.
    """
    groups = defaultdict(list)
    for index, p in enumerate(layers):
        groups[p.conv7.shape, p.conv7.dtype, p.conv7.device, p.conv7.requires_grad].append(index)
    weights = {}
    for indices in groups.values():
        group = [layers[index] for index in indices]
        kinds = COMPOSED + (CAST if group[0].up.dtype != dtype else ())
        made = Composition.apply(dtype, len(group), *(getattr(p, kind) for kind in kinds for p in group))
        parts = zip(*_by_kind(made, len(group)), strict=True)
        weights.update(zip(indices, map(_weights, group, parts), strict=True))
    return [weights[index] for index in range(len(layers))]


def _weights(p: Parameters, made: Sequence[Tensor]) -> Weights:
    norm, norm_bias, kernel, kernel_bias, matrix, *cast = made
    down, down_bias, matrix_bias, up, up_bias = cast or (getattr(p, kind) for kind in CAST)
    return Weights(norm, norm_bias, p.gammax, down, down_bias, kernel, kernel_bias, matrix, matrix_bias, up, up_bias)


def _by_kind(tensors: Sequence[Tensor], count: int) -> list[list[Tensor]]:
    """Tensors of ``count`` layers, which lie kind by kind."""
    return [[*tensors[start : start + count]] for start in range(0, len(tensors), count)]


class Composition(torch.autograd.Function):
    """Gamma in the affine of the norm, the mean of three kernels and the skip in one, and the second skip too.

    Many layers take as few operations as one. What is given and what is returned lies kind by kind: of ``COMPOSED``
    come norm, bias of the norm, kernel, bias of the kernel and matrix, and of ``CAST`` the same in another dtype.
    """

    @staticmethod
    def forward(ctx: Any, dtype: torch.dtype, count: int, *parameters: Tensor) -> tuple[Tensor, ...]:
        ctx.count = count
        ctx.set_materialize_grads(False)
        norm, norm_bias, gamma, conv3, bias3, conv5, bias5, conv7, bias7, pointwise, *cast = _by_kind(parameters, count)
        ctx.save_for_backward(*norm, *norm_bias, *gamma)
        norms = products([*norm, *norm_bias], [*gamma, *gamma])
        kernel = torch.stack(conv7)
        kernel[..., 1:6, 1:6].add_(torch.stack(conv5))
        kernel[..., 2:5, 2:5].add_(torch.stack(conv3))
        kernel.div_(3)[..., 3, 3].add_(1)
        bias = torch.stack([*bias3, *bias5, *bias7]).unflatten(0, (3, count)).mean(0)
        matrix = torch.stack(pointwise).flatten(2)
        matrix.diagonal(dim1=1, dim2=2).add_(1)
        made = [part for stack in (kernel, bias, matrix) for part in stack.to(dtype).unbind()]
        return *norms, *made, *copies_in(dtype, [tensor for kind in cast for tensor in kind])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None):
        norm, norm_bias, gamma = _by_kind(ctx.saved_tensors, ctx.count)
        kinds = _by_kind(grads, ctx.count)
        # A layer that the loss does not reach has none at all.
        used = [index for index, grad in enumerate(kinds[0]) if grad is not None]
        chosen = ([kind[index] for index in used] for kind in (norm, norm_bias, gamma, *kinds))
        norm, norm_bias, gamma, g_norm, g_norm_bias, g_kernel, g_bias, g_matrix, *cast = chosen
        dtype = gamma[0].dtype
        g_norms = products([*g_norm, *g_norm_bias], [*gamma, *gamma])
        g_gamma = products(g_norm, norm)
        add_products_(g_gamma, g_norm_bias, norm_bias)
        kernel = torch.stack(g_kernel).to(dtype).div_(3)
        # Memory of its own for each kind, which autograd takes over.
        conv3, conv5, conv7 = (kernel[..., edge : 7 - edge, edge : 7 - edge].contiguous() for edge in (2, 1, 0))
        bias3, bias5, bias7 = (torch.stack(g_bias).to(dtype) / 3).expand(3, -1, -1).contiguous()
        pointwise = torch.stack(g_matrix).to(dtype)[..., None, None]
        found = [g_norms[: len(used)], g_norms[len(used) :], g_gamma]
        found += [stack.unbind() for stack in (conv3, bias3, conv5, bias5, conv7, bias7, pointwise)]
        found += _by_kind(copies_in(dtype, [grad for kind in cast for grad in kind]), len(used))
        result = [[None] * ctx.count for _ in found]
        for into, kind in zip(result, found, strict=True):
            for index, grad in zip(used, kind, strict=True):
                into[index] = grad
        return None, None, *(grad for kind in result for grad in kind)
