"""Mona: multi-cognitive visual adapter."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

INITS = ('trunc_normal', 'torch')


class Mona(nn.Module):
    """Mix tokens over three depthwise kernels inside a bottleneck and add the result to the stream.

    ``z = gamma * norm(x) + gammax * x``; ``y = down(z)`` on the (H, W) grid;
    ``y = (conv3(y) + conv5(y) + conv7(y)) / 3 + y``; ``y = pointwise(y) + y``;
    ``out = x + up(dropout(gelu(y)))``.

    The three depthwise kernels, their mean and the skip are one 7 x 7 kernel, the 1 x 1 kernel and its skip are
    one matrix, and gamma folds into the affine of the norm. They are composed in every forward, so the result and
    the gradients of the parts are those of the formula above.

    Args:
        dim: Channels C of the tokens.
        bottleneck: Width of the bottleneck.
        dropout: Probability of dropping a bottleneck activation in training.
        init: ``'trunc_normal'`` draws both projections from N(0, 0.02) with zero bias, as in the authors' detection
            and segmentation code; ``'torch'`` keeps the defaults of ``nn.Linear``, as in their rotated detection
            code. Neither starts at the identity: ``gamma`` is 1e-6 and ``gammax`` is 1, but ``up`` is not zero.

    Shape: ``(B, N, C), (H, W) -> (B, N, C)`` with ``N = H * W`` in row-major order.

    Raises:
        ValueError: A size or an option is out of range, or N is not H * W.

    Source: Yin et al. 2024, arXiv:2408.08345; values and order as in the authors' code.
    """

    sites = ('after_attn', 'after_ffn')
    needs_grid = True
    needs_attention = False
    beside = False
    no_decay = ('norm',)

    def __init__(self, dim: int, bottleneck: int = 64, dropout: float = 0.1, init: str = 'trunc_normal') -> None:
        super().__init__()
        if dim < 1 or bottleneck < 1:
            raise ValueError(f'Mona needs dim and bottleneck of at least 1, got dim={dim}, bottleneck={bottleneck}.')
        if not 0 <= dropout < 1:
            raise ValueError(f'Mona needs a dropout in [0, 1), got {dropout}.')
        if init not in INITS:
            raise ValueError(f'Mona knows the initialisations {", ".join(INITS)}, got {init!r}.')
        self.dropout = dropout
        self.init = init
        self.norm = nn.LayerNorm(dim)
        self.gamma = nn.Parameter(torch.empty(dim))
        self.gammax = nn.Parameter(torch.empty(dim))
        self.down = nn.Linear(dim, bottleneck)
        self.conv3 = nn.Conv2d(bottleneck, bottleneck, 3, padding=1, groups=bottleneck)
        self.conv5 = nn.Conv2d(bottleneck, bottleneck, 5, padding=2, groups=bottleneck)
        self.conv7 = nn.Conv2d(bottleneck, bottleneck, 7, padding=3, groups=bottleneck)
        self.pointwise = nn.Conv2d(bottleneck, bottleneck, 1)
        self.up = nn.Linear(bottleneck, dim)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        for layer in self.children():
            layer.reset_parameters()
        nn.init.constant_(self.gamma, 1e-6)
        nn.init.ones_(self.gammax)
        if self.init == 'trunc_normal':
            for layer in (self.down, self.up):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, hw_shape: tuple[int, int]) -> Tensor:
        height, width = hw_shape
        if x.shape[1] != height * width:
            raise ValueError(f'Mona got {x.shape[1]} tokens for a grid of {height} x {width} = {height * width}.')
        norm = self.norm
        z = F.layer_norm(x, norm.normalized_shape, norm.weight * self.gamma, norm.bias * self.gamma, norm.eps)
        y = self.down(torch.addcmul(z, x, self.gammax))
        y = y.transpose(1, 2).unflatten(2, (height, width))
        y = F.conv2d(y, *self.depthwise_kernel(), padding=3, groups=y.shape[1])
        y = F.linear(y.flatten(2).transpose(1, 2), *self.pointwise_matrix())
        y = F.dropout(F.gelu(y), self.dropout, self.training)
        return x + self.up(y)

    def depthwise_kernel(self) -> tuple[Tensor, Tensor]:
        """Weight (D, 1, 7, 7) and bias (D) equal to the mean of the three convolutions plus the skip."""
        parts = (self.conv3, self.conv5, self.conv7)
        weight = sum(F.pad(conv.weight, [(7 - conv.kernel_size[0]) // 2] * 4) for conv in parts) / 3
        skip = F.pad(weight.new_ones(1, 1, 1, 1), [3] * 4)
        return weight + skip, sum(conv.bias for conv in parts) / 3

    def pointwise_matrix(self) -> tuple[Tensor, Tensor]:
        """Weight (D, D) and bias (D) equal to the 1 x 1 convolution plus the skip."""
        weight = self.pointwise.weight.flatten(1)
        return weight + torch.eye(len(weight), dtype=weight.dtype, device=weight.device), self.pointwise.bias
