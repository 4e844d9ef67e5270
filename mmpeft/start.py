"""Starting values that depend on the seed, the place and its layer alone, and leave the global generator as it was."""

import copy
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from mmpeft.methods.method import Method


@contextmanager
def seeded(place: str) -> Iterator[None]:
    """Draw on the CPU from a generator seeded by ``torch.initial_seed()`` and ``place``.

    Only the CPU's generator is touched and restored; ``torch.manual_seed`` would reseed the GPUs too.
    """
    generator = torch.default_generator
    state = generator.get_state()
    digest = hashlib.sha256(f'{generator.initial_seed()}:{place}'.encode()).digest()
    generator.manual_seed(int.from_bytes(digest[:7], 'big'))
    try:
        yield
    finally:
        generator.set_state(state)


def draw(adapter: Method, place: str, weight: Tensor | None = None, bias: Tensor | None = None) -> None:
    """Give ``adapter`` the starting values of ``place``, drawn in fp32 on the CPU whatever its device and dtype.

    Args:
        adapter: What is to start.
        place: Its place, ``stages.0.blocks.0.after_attn`` and the like.
        weight: Weight of the layer at the place, which some adapters start from.
        bias: Its bias.
    """
    there = all(p.device.type == 'cpu' and p.dtype == torch.float32 for p in adapter.parameters())
    drawn = adapter if there else copy.deepcopy(adapter).to('cpu', torch.float32)
    with seeded(place), torch.no_grad():
        drawn.reset_parameters()
        if adapter.has_own('start_from') and not weight.is_meta:
            drawn.start_from(*(None if part is None else part.detach().float().cpu() for part in (weight, bias)))
    if drawn is not adapter:
        adapter.load_state_dict(drawn.state_dict())
