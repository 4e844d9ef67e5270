"""Adapters of two projections with GELU between them: Adapter, AdaptFormer and LoRand."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmpeft.methods.casting import as_autocast_would
from mmpeft.methods.dropout import in_training
from mmpeft.methods.method import Method

INITS = ('trunc_normal', 'torch')


class Projections(NamedTuple):
    """The weights of the two projections."""

    down: Tensor
    down_bias: Tensor
    up: Tensor
    up_bias: Tensor


class Adapter(Method):
    """Add a small MLP of the tokens to the tokens, ``x + up(dropout(gelu(down(x))))``.

    Args:
        dim: Channels C of the tokens.
        bottleneck: Width of the bottleneck.
        dropout: Probability of dropping a bottleneck activation in training.
        init: ``'trunc_normal'`` draws both projections from N(0, 0.02) with zero bias, as the published backbones
            do for every linear layer in them; ``'torch'`` keeps the defaults of ``nn.Linear``.

    Shape: ``(..., C) -> (..., C)``

    Raises:
        ValueError: A size or an option is out of range.

    Source: Houlsby et al. 2019, arXiv:1902.00751; GELU, width, dropout and places as in the baseline of Yin et al.
        2024, arXiv:2408.08345.
    """

    sites = ('after_attn', 'ffn_branch')
    reads = ('together',)
    tokenwise = True

    def __init__(self, dim: int, bottleneck: int = 64, dropout: float = 0.1, init: str = 'trunc_normal') -> None:
        super().__init__()
        _check(type(self).__name__, dim, bottleneck, dropout, init)
        self.dropout = dropout
        self.init = init
        self.down = nn.Linear(dim, bottleneck)
        self.up = nn.Linear(bottleneck, dim)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        for layer in (self.down, self.up):
            layer.reset_parameters()
            if self.init == 'trunc_normal':
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)

    @classmethod
    def together(cls, adapters: Sequence['Adapter']) -> list[Projections]:
        cast = as_autocast_would([tensor for adapter in adapters for tensor in adapter.projections()])
        return [Projections(*cast[start : start + 4]) for start in range(0, len(cast), 4)]

    def projections(self) -> Projections:
        """The weights as they are."""
        return Projections(self.down.weight, self.down.bias, self.up.weight, self.up.bias)

    def hidden(self, x: Tensor, weights: Projections | None = None) -> Tensor:
        """The activations of the bottleneck. Shape: ``(..., C) -> (..., D)``."""
        weights = self.projections() if weights is None else weights
        return in_training(F.gelu(F.linear(x, weights.down, weights.down_bias)), self.dropout, self.training)

    def forward(self, x: Tensor, weights: Projections | None = None) -> Tensor:
        weights = self.projections() if weights is None else weights
        return x + F.linear(self.hidden(x, weights), weights.up, weights.up_bias)


class AdaptFormer(Adapter):
    """Compute a small scaled MLP beside the FFN, ``scale * up(dropout(gelu(down(x))))``; the host adds it.

    Args:
        dim: Channels C of the tokens.
        bottleneck: Width of the bottleneck.
        dropout: Probability of dropping a bottleneck activation in training.
        scale: Fixed factor of the result.
        init: As for ``Adapter``.

    Shape: ``(..., C) -> (..., C)``

    Raises:
        ValueError: A size or an option is out of range.

    Source: Chen et al. 2022, arXiv:2205.13535; GELU, dropout and starting values as in the baseline of Yin et al.
        2024, arXiv:2408.08345.
    """

    sites = ('beside_ffn',)
    beside = True

    def __init__(
        self,
        dim: int,
        bottleneck: int = 64,
        dropout: float = 0.1,
        scale: float = 0.1,
        init: str = 'trunc_normal',
    ) -> None:
        super().__init__(dim, bottleneck, dropout, init)
        if not scale:
            raise ValueError('AdaptFormer needs a scale other than 0: with 0 it would learn nothing.')
        self.scale = scale

    def forward(self, x: Tensor, weights: Projections | None = None) -> Tensor:
        weights = self.projections() if weights is None else weights
        return F.linear(self.hidden(x, weights), self.scale * weights.up, self.scale * weights.up_bias)


class LoRand(Method):
    """Add an MLP whose two matrices are sums of low-rank products, ``x + up(gelu(down(x)))``.

    Args:
        dim: Channels C of the tokens.
        factor: The bottleneck is ``dim // factor`` wide.
        branches: Products in each sum.
        kernel: Width of each product.

    Shape: ``(..., C) -> (..., C)``

    Raises:
        ValueError: A size is out of range.

    Source: Yin et al. 2023, 1% vs 100%: Parameter-Efficient Low Rank Adapter for Dense Predictions, CVPR; sizes and
        places as in the baseline of STAR-MMRotate.
    """

    sites = ('attn_branch', 'ffn_branch')
    tokenwise = True

    def __init__(self, dim: int, factor: int = 2, branches: int = 4, kernel: int = 8) -> None:
        super().__init__()
        if min(factor, branches, kernel) < 1 or dim < factor:
            raise ValueError(
                'LoRand needs factor, branches and kernel of at least 1 and dim of at least factor, got '
                f'dim={dim}, factor={factor}, branches={branches}, kernel={kernel}.'
            )
        self.down = LowRankLinear(dim, dim // factor, branches, kernel)
        self.up = LowRankLinear(dim // factor, dim, branches, kernel)

    def reset_parameters(self) -> None:
        self.down.reset_parameters()
        self.up.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.up(F.gelu(self.down(x)))


class LowRankLinear(nn.Module):
    """Apply a linear layer whose matrix is a sum over branches, ``sum_b right[b] core[b] left[b]``, plus a bias.

    All branches run as two matrix products, and the small core is multiplied into the left factor first. Each
    factor starts as the weight of an ``nn.Linear`` of its size does, and the bias at zero.

    Args:
        in_features: Channels that are read.
        out_features: Channels that are returned.
        branches: Products in the sum.
        kernel: Width of each product.

    Shape: ``(..., in_features) -> (..., out_features)``
    """

    def __init__(self, in_features: int, out_features: int, branches: int, kernel: int) -> None:
        super().__init__()
        self.left = nn.Parameter(torch.empty(branches, kernel, in_features))
        self.core = nn.Parameter(torch.empty(branches, kernel, kernel))
        self.right = nn.Parameter(torch.empty(branches, out_features, kernel))
        self.bias = nn.Parameter(torch.empty(out_features))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        for factors in (self.left, self.core, self.right):
            bound = factors.shape[-1] ** -0.5
            nn.init.uniform_(factors, -bound, bound)
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        left = (self.core @ self.left).flatten(0, 1)
        right = self.right.transpose(0, 1).flatten(1)
        return F.linear(F.linear(x, left), right, self.bias)


def _check(name: str, dim: int, bottleneck: int, dropout: float, init: str) -> None:
    if dim < 1 or bottleneck < 1:
        raise ValueError(f'{name} needs dim and bottleneck of at least 1, got dim={dim}, bottleneck={bottleneck}.')
    if not 0 <= dropout < 1:
        raise ValueError(f'{name} needs a dropout in [0, 1), got {dropout}.')
    if init not in INITS:
        raise ValueError(f'{name} knows the initialisations {", ".join(INITS)}, got {init!r}.')
