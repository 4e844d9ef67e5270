"""VPT: prompts that join the tokens of a block."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mmpeft.methods.dropout import in_training
from mmpeft.methods.method import Method


class VPT(Method):
    """Return learned tokens that a block processes together with its own.

    The host inserts them after the class token. Deep: every block has prompts of its own, and what it makes of them
    is dropped after it. Shallow: there is one set, which enters the first block and travels through all of them.

    Args:
        dim: Channels C of the tokens.
        patch_size: Height and width of an image patch in pixels; they set the range of the starting values.
        num_prompts: Prompts P of this place.
        dropout: Probability of dropping a prompt's value in training, drawn anew for each sample.
        deep: Whether each block has prompts of its own.

    Shape: ``(B, N, C) -> (B, P, C)``; of the tokens only the batch size and the dtype are read.

    Raises:
        ValueError: A size or an option is out of range.

    Source: Jia et al. 2022, arXiv:2203.12119; starting values by their formula.
    """

    sites = ('input',)
    place_option = 'deep'

    def __init__(
        self,
        dim: int,
        patch_size: tuple[int, int],
        num_prompts: int = 10,
        dropout: float = 0.1,
        deep: bool = True,
    ) -> None:
        super().__init__()
        if min(dim, num_prompts, *patch_size) < 1:
            raise ValueError(
                'VPT needs dim, num_prompts and a patch_size of at least 1, got '
                f'dim={dim}, num_prompts={num_prompts}, patch_size={patch_size}.'
            )
        if not 0 <= dropout < 1:
            raise ValueError(f'VPT needs a dropout in [0, 1), got {dropout}.')
        self.dropout = dropout
        self.deep = deep
        self.bound = math.sqrt(6 / (3 * math.prod(patch_size) + dim))
        self.prompts = nn.Parameter(torch.empty(num_prompts, dim))
        self.reset_parameters()

    @classmethod
    def once(cls, options: Mapping[str, Any]) -> bool:
        """Whether one adapter, in the first of the chosen blocks, serves all blocks after it."""
        return not options.get('deep', True)

    def reset_parameters(self) -> None:
        nn.init.uniform_(self.prompts, -self.bound, self.bound)

    def forward(self, x: Tensor) -> Tensor:
        return in_training(self.prompts.expand(x.shape[0], -1, -1), self.dropout, self.training).to(x.dtype)
