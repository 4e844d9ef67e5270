"""Teach mmengine's checkpoint loader to read a plain ViT of timm as mmseg's ViT wants it: ``timm:`` before the file."""

import re
from collections import OrderedDict
from typing import Any

from mmengine.runner.checkpoint import CheckpointLoader

from mmpeft.adapter_file import TIMM
from mmpeft.layouts import MMSEG_VIT

# Of the classifier alone: its head, and the norm before it, which SETR and its like do not have.
CLASSIFIER = r'(head|pre_logits|norm)\..+'


@CheckpointLoader.register_scheme(prefixes=TIMM)
def load_from_timm(filename: str, map_location: str | None = None) -> dict[str, Any]:
    """Load ``timm:FILE`` or ``timm:URL``, a plain ViT of timm, under the names of mmseg's ViT.

    mmseg itself would take little more than the class token from such a file, and say so in the log only.

    Raises:
        ValueError: The file holds no ViT in timm's layout.
    """
    place = filename.removeprefix(TIMM)
    checkpoint = CheckpointLoader.load_checkpoint(place, map_location=map_location)
    state = checkpoint.get('state_dict', checkpoint.get('model', checkpoint))
    if 'blocks.0.attn.qkv.weight' not in state:
        raise ValueError(
            f'{place} holds no ViT in the layout of timm: it has no blocks.0.attn.qkv.weight. If its names are those '
            f'of mmseg already, give it without {TIMM!r}.'
        )
    kept = {name: tensor for name, tensor in state.items() if not re.fullmatch(CLASSIFIER, name)}
    return dict(state_dict=OrderedDict((_renamed(name), tensor) for name, tensor in kept.items()))


def _renamed(name: str) -> str:
    matches = ((rule, re.fullmatch(rule.pattern, name)) for rule in MMSEG_VIT)
    return next((match.expand(rule.target) for rule, match in matches if match), name)
