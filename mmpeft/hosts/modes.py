"""Freezing that holds: what stock code freezes on the way, and eval mode for what is frozen while the rest trains."""

import re
from collections import defaultdict

from torch import nn

from mmpeft.hosts.host import Host, adapters_of, is_adapter


class Modes(Host):
    """The part of an adapted backbone that ``train()`` and ``frozen_stages`` meet.

    Attributes:
        block: Pattern of the full names of the blocks.
        eval_frozen: Keep the parts in which no base parameter trains in eval mode, from the next ``train()`` on.
    """

    state = ('eval_frozen',)
    block = r'(?!)'
    eval_frozen = False

    def train(self, mode: bool = True) -> nn.Module:
        """As the stock class, some of which return None; ``eval_frozen`` then has its way."""
        super().train(mode)
        if mode and self.eval_frozen:
            eval_frozen_parts(self, self.block)
        return self

    def _freeze_stages(self) -> None:
        """Freeze the stages that ``frozen_stages`` names, adapters excepted."""
        adapters = [adapter for _, adapter in adapters_of(self)]
        trainable = [p for adapter in adapters for p in adapter.parameters() if p.requires_grad]
        super()._freeze_stages()
        for parameter in trainable:
            parameter.requires_grad = True
        for adapter in adapters:
            adapter.train(self.training)


def eval_frozen_parts(backbone: nn.Module, block: str) -> None:
    """Put those parts of ``backbone`` in which no base parameter trains into eval mode.

    A part is a block, or all that is in no block. Adapters stay as they are, and the backbone itself in train mode.

    Args:
        backbone: An adapted backbone.
        block: Pattern of the full names of its blocks.
    """
    parts, trained = defaultdict(list), set()
    for name, module in backbone.named_modules():
        if is_adapter(name):
            continue
        match = re.match(block, name)
        part = match.group() if match else ''
        parts[part].append(module)
        if any(p.requires_grad for p in module.parameters(recurse=False)):
            trained.add(part)
    for part in parts.keys() - trained:
        for module in parts[part]:
            module.training = module is backbone
