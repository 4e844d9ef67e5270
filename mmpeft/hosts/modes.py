"""Eval mode for what is frozen while the rest trains."""

import re
from collections import defaultdict

from torch import nn


def eval_frozen_parts(backbone: nn.Module, block: str) -> None:
    """Put those parts of ``backbone`` in which no base parameter trains into eval mode.

    A part is a block, or all that is in no block. Adapters stay as they are, and the backbone itself in train mode.

    Args:
        backbone: An adapted backbone.
        block: Pattern of the full names of its blocks.
    """
    parts, trained = defaultdict(list), set()
    for name, module in backbone.named_modules():
        if 'adapters' in name.split('.'):
            continue
        match = re.match(block, name)
        part = match.group() if match else ''
        parts[part].append(module)
        if any(p.requires_grad for p in module.parameters(recurse=False)):
            trained.add(part)
    for part in parts.keys() - trained:
        for module in parts[part]:
            module.training = module is backbone
