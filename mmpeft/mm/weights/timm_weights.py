"""Teach mmengine's checkpoint loader to read a plain ViT of timm as mm's ViT wants it: ``timm:`` before the file."""

import re
from collections import OrderedDict
from typing import Any

from mmengine.runner.checkpoint import CheckpointLoader
from torch import Tensor

from mmpeft.adapter_file import TIMM
from mmpeft.layouts import MMPRETRAIN_VIT, MMSEG_VIT, Rule
from mmpeft.mm.weights.checkpoints import state_in

# Of the classifier alone: its head, and the norm before it, which SETR and its like do not have.
CLASSIFIER = r'(head|pre_logits|norm)\..+'
# Of pretraining alone: what DINOv2 puts in place of masked patches.
MASK = 'mask_token'
REGISTERS = ('register_tokens', 'reg_token')


@CheckpointLoader.register_scheme(prefixes=TIMM)
def load_from_timm(filename: str, map_location: Any = None) -> dict[str, Any]:
    """Load ``timm:FILE`` or ``timm:URL``, a plain ViT of timm, under the names of mmseg's ViT.

    mmseg itself would take little more than the class token from such a file, and say so in the log only. DINOv2, whose
    authors' files have timm's names too, gets those of mmpretrain's ViT: no other here has its layer scales.

    Raises:
        ValueError: The file holds no ViT in timm's layout, or one with register tokens.
    """
    place = filename.removeprefix(TIMM)
    state = state_in(CheckpointLoader.load_checkpoint(place, map_location=map_location), place)
    if 'blocks.0.attn.qkv.weight' not in state:
        raise ValueError(
            f'{place} holds no ViT in the layout of timm: it has no blocks.0.attn.qkv.weight. If its names are those '
            f'of mm already, give it without {TIMM!r}.'
        )
    if not state.keys().isdisjoint(REGISTERS):
        raise ValueError(f'{place} holds a ViT with register tokens, which no ViT of mm has. Take one without them.')
    if 'blocks.0.ls1.gamma' in state:
        return dict(state_dict=_renamed(state, MMPRETRAIN_VIT, MASK))
    return dict(state_dict=_renamed(state, MMSEG_VIT, CLASSIFIER))


def _renamed(state: dict[str, Tensor], rules: tuple[Rule, ...], unused: str) -> OrderedDict[str, Tensor]:
    kept = ((name, tensor) for name, tensor in state.items() if not re.fullmatch(unused, name))
    return OrderedDict((_name(name, rules), tensor) for name, tensor in kept)


def _name(name: str, rules: tuple[Rule, ...]) -> str:
    matches = ((rule, re.fullmatch(rule.pattern, name)) for rule in rules)
    return next((match.expand(rule.target) for rule, match in matches if match), name)
