"""LoRA: low-rank changes of linear layers, and of the convolution that embeds patches."""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmpeft.methods.casting import Multiplication, as_autocast_would
from mmpeft.methods.method import Method

PARTS = ('q', 'k', 'v')
FEED_FORWARD = ('fc1', 'fc2')
LEAVES = ('proj', *FEED_FORWARD, 'patch_embed')


class Factors(NamedTuple):
    """A, and B times ``alpha / rank``."""

    down: Tensor
    up: Tensor


class LoRA(Method):
    """Compute the low-rank change of a linear layer from the layer's input, ``alpha / rank * (x A^T) B^T``.

    In a fused projection each target has an A and a B of its own, and the other parts change by zero. The kernel of a
    convolution is the linear layer of one window, a row for each output channel: its change is ``delta`` in that shape.

    Args:
        in_features: Channels that the linear layer reads; of a convolution, the values of a window.
        out_features: Channels that it returns.
        rank: Rank of the change, of each target.
        alpha: The change is scaled by ``alpha / rank``.
        targets: Which parts of a fused query, key and value projection change; None is the whole output of an
            ordinary layer. In a method config the names of other layers may stand here too, see ``places``.

    Shape: ``(..., in_features) -> (..., out_features)``

    Raises:
        ValueError: A size or an option is out of range, or out_features cannot be split into three parts.

    Source: Hu et al. 2021, arXiv:2106.09685; defaults as in the baseline of Yin et al. 2024, arXiv:2408.08345.
        A convolution is changed as in the authors' loralib, except that the rank is ``rank`` itself. loralib multiplies
        it by the width of the kernel; on three colours that takes more parameters than the kernel from rank 3 on.
    """

    sites = ('qkv',)
    reads = ('together',)
    beside = True
    takes_maps = True
    folds = True
    shifts = False
    place_option = 'targets'

    def __init__(
        self,
        in_features: int,
        out_features: int,
        rank: int = 64,
        alpha: float = 1,
        targets: tuple[str, ...] | None = ('q', 'v'),
    ) -> None:
        super().__init__()
        if min(in_features, out_features, rank) < 1:
            raise ValueError(
                'LoRA needs in_features, out_features and rank of at least 1, got '
                f'in_features={in_features}, out_features={out_features}, rank={rank}.'
            )
        if alpha <= 0:
            raise ValueError(f'LoRA needs an alpha above 0, got {alpha}.')
        _check_targets(targets, PARTS)
        if targets is not None and out_features % len(PARTS):
            raise ValueError(
                f'{out_features} output channels do not split into q, k and v. For a layer that is no fused '
                'projection, set targets=None.'
            )
        self.alpha = alpha
        self.rank = rank
        self.scaling = alpha / rank
        self.enabled = (True,) if targets is None else tuple(part in targets for part in PARTS)
        self.lora_A = nn.Parameter(torch.empty(rank * sum(self.enabled), in_features))
        self.lora_B = nn.Parameter(torch.empty(out_features // len(self.enabled) * sum(self.enabled), rank))
        self.reset_parameters()

    @classmethod
    def places(cls, options: Mapping[str, Any]) -> dict[str, dict]:
        """The sites that ``targets`` names, each with the options of the layer there.

        q, k and v are parts of the site ``qkv``; ``proj``, ``fc1``, ``fc2`` and ``patch_embed`` are sites themselves.

        Raises:
            ValueError: A target is unknown, or there is none.
        """
        targets = options.get('targets', ('q', 'v'))
        _check_targets(targets, PARTS + LEAVES)
        if targets is None:
            raise ValueError(f'LoRA needs targets of {", ".join(PARTS + LEAVES)}, got None.')
        parts = tuple(part for part in PARTS if part in targets)
        places = {'qkv': {**options, 'targets': parts}} if parts else {}
        return places | {leaf: {**options, 'targets': None} for leaf in LEAVES if leaf in targets}

    @classmethod
    def places_in(cls, options: Mapping[str, Any], known: Collection[str]) -> dict[str, dict]:
        """The same; where there is no attention, as in ConvNeXt, the default targets are ``fc1`` and ``fc2``."""
        without = 'targets' not in options and 'qkv' not in known
        return cls.places({**options, 'targets': FEED_FORWARD} if without else options)

    def reset_parameters(self) -> None:
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))
        nn.init.zeros_(self.lora_B)

    def set_rank(self, rank: int) -> None:
        """Make room for factors of this rank, which are to be loaded next; alpha stays."""
        if rank == self.rank:
            return
        down, up = self.lora_A, self.lora_B
        self.rank, self.scaling = rank, self.alpha / rank
        self.lora_A = nn.Parameter(down.new_empty(rank * sum(self.enabled), down.shape[1]), down.requires_grad)
        self.lora_B = nn.Parameter(up.new_empty(len(up), rank), up.requires_grad)

    @classmethod
    def together(cls, adapters: Sequence['LoRA']) -> list[Factors]:
        ups = Multiplication.apply([a.scaling for a in adapters], *(a.lora_B for a in adapters))
        cast = as_autocast_would([*(a.lora_A for a in adapters), *ups])
        return [*map(Factors, cast[: len(ups)], cast[len(ups) :])]

    def factors(self) -> Factors:
        """The factors as they are."""
        return Factors(self.lora_A, self.lora_B * self.scaling)

    def forward(self, x: Tensor, factors: Factors | None = None) -> Tensor:
        down, up = self.factors() if factors is None else factors
        pairs = zip(F.linear(x, down).split(self.rank, dim=-1), up.chunk(sum(self.enabled)), strict=True)
        return self._gather([F.linear(low, up) for low, up in pairs], dim=-1)

    def fold(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Weight and bias of a layer that computes what the given one and this LoRA beside it compute.

        Shape: ``(out_features, ...), (out_features) -> (out_features, ...), (out_features)``
        """
        return (weight + self.delta().view_as(weight)).to(weight.dtype), bias

    def delta(self) -> Tensor:
        """The change of the weight, ``alpha / rank * B A``. Shape: ``(out_features, in_features)``."""
        down, up = self.factors()
        pairs = zip(down.split(self.rank), up.chunk(sum(self.enabled)), strict=True)
        return self._gather([up @ down for down, up in pairs], dim=0)

    def _gather(self, changes: list[Tensor], dim: int) -> Tensor:
        """The changes of the enabled parts in their places along ``dim``, with zeros for the others."""
        remaining, zero = iter(changes), torch.zeros_like(changes[0])
        return torch.cat([next(remaining) if enabled else zero for enabled in self.enabled], dim)


def _check_targets(targets: tuple[str, ...] | None, known: tuple[str, ...]) -> None:
    if targets is not None and (not targets or any(target not in known for target in targets)):
        raise ValueError(f'LoRA needs one or more of the targets {", ".join(known)}, got {targets!r}.')
