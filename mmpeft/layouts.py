"""Where the authors' code of each method keeps its tensors, as rules that turn its names into those of mm."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from mmpeft.hosts import Backbone
from mmpeft.hosts.swin import SwinBackbone
from mmpeft.hosts.vit import MMSegViTBackbone, ViTBackbone


def unfold_order(tensor: Tensor) -> Tensor:
    """Bring the channels of patch merging, the last axis, from the order of the Swin authors into that of mm.

    The authors concatenate the four patches of a 2 x 2 window, column by column; mm unfolds the window, which gives
    for each channel its four patches, row by row.

    Shape: ``(..., 4 C) -> (..., 4 C)``
    """
    return tensor.unflatten(-1, (2, 2, -1)).transpose(-1, -3).flatten(-3)


@dataclass(frozen=True)
class Rule:
    """Names that ``pattern`` matches as a whole become ``target``, and their values what ``change`` makes of them.

    A ``*`` in the target counts the slices along the first axis: each becomes a tensor of its own. With a ``reason``
    the tensor may be left out where the model has no such target, and without a target it always is.
    """

    pattern: str
    target: str = ''
    change: Callable[[Tensor], Tensor] | None = None
    reason: str = ''


@dataclass(frozen=True)
class Move:
    """A tensor of a file, where it goes, and why it may be left out if there is no such place."""

    source: str
    target: str
    tensor: Tensor
    reason: str = ''


@dataclass(frozen=True)
class Layout:
    """The names that one published code gives its tensors; those that no rule matches are the same in mm.

    Attributes:
        name: Whose layout it is, for messages.
        method: The method as mmpeft names it.
        mark: A pattern that a name in such a file matches, and none in any other.
        looks_like: The same for the reader.
        rules: What to rename, by the kind of the backbone; the first rule that matches counts.
    """

    name: str
    method: str
    mark: str
    looks_like: str
    rules: Mapping[type[Backbone], tuple[Rule, ...]] = field(repr=False)

    def moves(self, host: type[Backbone], name: str, tensor: Tensor) -> list[Move]:
        """Where the tensor ``name`` of a backbone goes in a backbone of the kind ``host``."""
        for rule in self.rules[host]:
            match = re.fullmatch(rule.pattern, name)
            if match:
                target = match.expand(rule.target)
                if '*' in target:
                    return [Move(name, target.replace('*', str(i)), part) for i, part in enumerate(tensor)]
                return [Move(name, target, rule.change(tensor) if rule.change else tensor, rule.reason)]
        return [Move(name, name, tensor)]


def find_layout(names: Iterable[str]) -> Layout:
    """The one layout to which the names of a file belong.

    Raises:
        ValueError: There is none, or there is more than one; it says what was looked for.
    """
    names = list(names)
    found = [layout for layout in LAYOUTS if any(re.search(layout.mark, name) for name in names)]
    if len(found) != 1:
        known = '; '.join(f'{layout.looks_like} ({layout.name})' for layout in LAYOUTS)
        what = f'of {" and of ".join(layout.name for layout in found)}' if found else 'of no known layout'
        first = f', of which the first is {names[0]},' if names else ''
        raise ValueError(f'The {len(names)} tensors{first} are {what}. Looked for: {known}.')
    return found[0]


# The head of a classifier in timm and in the Swin authors' code, and where mmpretrain's heads have the same.
HEAD = r'head\.(weight|bias)'
HEADS = (r'head.fc.\1', r'head.layers.head.\1')
# Only a classifier has one norm after its last block; a Swin for dense prediction has one for each output.
CLASSIFIER_NORM = 'norm.weight'
# What SSF's own code does not have: it has no outputs before the last.
FRESH_SSF = r'norm\d+\.adapters\.output_norm\.(scale|shift)'

GRID_MASK = 'a mask that the model computes from the grid'
NO_LAST_NORM = "of the norm after the last block, which the config's backbone does not have"
SHARED = 'equal to the self-attention of its block, which mmpeft reads instead'

BLOCK = r'layers\.(\d+\.blocks\.\d+)'
SWIN = (
    Rule(r'patch_embed\.proj\.(.+)', r'patch_embed.projection.\1'),
    Rule(rf'{BLOCK}\.attn_mask', reason=GRID_MASK),
    Rule(rf'{BLOCK}\.attn\.(.+)', r'stages.\1.attn.w_msa.\2'),
    Rule(rf'{BLOCK}\.mlp\.fc1\.(.+)', r'stages.\1.ffn.layers.0.0.\2'),
    Rule(rf'{BLOCK}\.mlp\.fc2\.(.+)', r'stages.\1.ffn.layers.1.\2'),
    Rule(rf'{BLOCK}\.(norm[12]\..+)', r'stages.\1.\2'),
    Rule(r'layers\.(\d+\.downsample\.(norm|reduction)\..+)', r'stages.\1', unfold_order),
    Rule(r'norm\.(.+)', r'norm3.\1', reason=NO_LAST_NORM),
)
MMPRETRAIN_VIT = (
    Rule(r'patch_embed\.proj\.(.+)', r'patch_embed.projection.\1'),
    Rule(r'blocks\.(\d+)\.norm([12])\.(.+)', r'layers.\1.ln\2.\3'),
    Rule(r'blocks\.(\d+)\.attn\.(.+)', r'layers.\1.attn.\2'),
    Rule(r'blocks\.(\d+)\.mlp\.fc1\.(.+)', r'layers.\1.ffn.layers.0.0.\2'),
    Rule(r'blocks\.(\d+)\.mlp\.fc2\.(.+)', r'layers.\1.ffn.layers.1.\2'),
    # DINOv2 alone: its layer scales, and the gated network of its giant.
    Rule(r'blocks\.(\d+)\.ls1\.gamma', r'layers.\1.attn.gamma1.weight'),
    Rule(r'blocks\.(\d+)\.ls2\.gamma', r'layers.\1.ffn.gamma2.weight'),
    Rule(r'blocks\.(\d+)\.mlp\.(w12|w3)\.(.+)', r'layers.\1.ffn.\2.\3'),
    Rule(r'norm\.(.+)', r'ln1.\1', reason=NO_LAST_NORM),
)
# Query, key and value have the same order in timm's fused layer and in nn.MultiheadAttention.
MMSEG_VIT = (
    Rule(r'blocks\.(\d+)\.attn\.qkv\.(weight|bias)', r'layers.\1.attn.attn.in_proj_\2'),
    Rule(r'blocks\.(\d+)\.attn\.proj\.(weight|bias)', r'layers.\1.attn.attn.out_proj.\2'),
    *MMPRETRAIN_VIT,
)

MONA_LEAVES = {
    r'project1\.(weight|bias)': r'down.\2',
    r'project2\.(weight|bias)': r'up.\2',
    r'norm\.(weight|bias)': r'norm.\2',
    r'(gammax?)': r'\2',
    r'adapter_conv\.conv1\.(weight|bias)': r'conv3.\2',
    r'adapter_conv\.conv2\.(weight|bias)': r'conv5.\2',
    r'adapter_conv\.conv3\.(weight|bias)': r'conv7.\2',
    r'adapter_conv\.projector\.(weight|bias)': r'pointwise.\2',
}


def _mona(first: str, second: str) -> tuple[Rule, ...]:
    """The two layers of a block by the patterns of their names, whose only group is the block."""
    return tuple(
        Rule(rf'{owner}\.{leaf}', rf'stages.\1.adapters.{site}.{target}')
        for owner, site in ((first, 'after_attn'), (second, 'after_ffn'))
        for leaf, target in MONA_LEAVES.items()
    )


def _ssf(places: Mapping[str, str], change: Callable[[Tensor], Tensor] | None = None, reason: str = '') -> tuple:
    """Rules for pairs of vectors: ``@`` stands for ``ssf_scale``, ``ssf_shift`` and for our names of both."""
    return tuple(
        Rule(source.replace('@', f'ssf_{leaf}'), target.replace('@', leaf), change, reason)
        for source, target in places.items()
        for leaf in ('scale', 'shift')
    )


# Derived from the order of the layers in the authors' forward, not read: which number belongs to which layer.
SSF_SWIN = (
    *_ssf(
        {
            r'patch_embed\.@_1': 'patch_embed.projection.adapters.patch_embed.@',
            r'patch_embed\.@_2': 'patch_embed.norm.adapters.patch_norm.@',
            rf'{BLOCK}\.@_1': r'stages.\1.norm1.adapters.norm1.@',
            rf'{BLOCK}\.attn\.@_1': r'stages.\1.attn.w_msa.qkv.adapters.qkv.@',
            rf'{BLOCK}\.attn\.@_2': r'stages.\1.attn.w_msa.proj.adapters.proj.@',
            rf'{BLOCK}\.@_2': r'stages.\1.norm2.adapters.norm2.@',
            rf'{BLOCK}\.mlp\.@_1': r'stages.\1.ffn.layers.0.0.adapters.fc1.@',
            rf'{BLOCK}\.mlp\.@_2': r'stages.\1.ffn.layers.1.adapters.fc2.@',
        }
    ),
    # Never made by the authors' code as published, which compares a list with a string.
    *_ssf({r'layers\.(\d+)\.downsample\.@_1': r'stages.\1.downsample.norm.adapters.merge_norm.@'}, unfold_order),
    *_ssf({'@_1': 'norm3.adapters.output_norm.@'}, reason=NO_LAST_NORM),
)


def _ssf_vit(qkv: str, proj: str) -> tuple[Rule, ...]:
    return (
        *_ssf(
            {
                r'patch_embed\.@_1': 'patch_embed.projection.adapters.patch_embed.@',
                r'patch_embed\.@_2': 'patch_embed.norm.adapters.patch_norm.@',
                r'blocks\.(\d+)\.@_1': r'layers.\1.ln1.adapters.norm1.@',
                r'blocks\.(\d+)\.attn\.@_1': rf'layers.\1.attn.{qkv}.adapters.qkv.@',
                r'blocks\.(\d+)\.attn\.@_2': rf'layers.\1.attn.{proj}.adapters.proj.@',
                r'blocks\.(\d+)\.@_2': r'layers.\1.ln2.adapters.norm2.@',
                r'blocks\.(\d+)\.mlp\.@_1': r'layers.\1.ffn.layers.0.0.adapters.fc1.@',
                r'blocks\.(\d+)\.mlp\.@_2': r'layers.\1.ffn.layers.1.adapters.fc2.@',
            }
        ),
        *_ssf({'@_1': 'ln1.adapters.output_norm.@'}, reason=NO_LAST_NORM),
    )


# Segmentation code has mmseg's `layers`; that classification code has timm's `blocks` is derived, not read.
CROSS = r'(?:blocks|layers)\.(\d+)\.cross'
CVPT = (
    Rule('Prompt_Tokens', 'layers.*.adapters.after_attn.prompts'),
    Rule(rf'{CROSS}\.([qkv])\.(weight|bias)', r'layers.\1.adapters.after_attn.\2.\3', reason=SHARED),
    Rule(rf'{CROSS}\.proj\.(weight|bias)', r'layers.\1.adapters.after_attn.out.\2', reason=SHARED),
)

LAYOUTS = (
    Layout(
        name="Mona's",
        method='Mona',
        mark=r'(^|\.)layers\.\d+\.blocks\.\d+\.my_module_[12]\.',
        looks_like='layers.S.blocks.B.my_module_1.*',
        rules={SwinBackbone: (*_mona(rf'{BLOCK}\.my_module_1', rf'{BLOCK}\.my_module_2'), *SWIN)},
    ),
    Layout(
        name="STAR-MMRotate's",
        method='Mona',
        mark=r'(^|\.)stages\.\d+\.blocks\.\d+\.mona[12]\.',
        looks_like='stages.S.blocks.B.mona1.*',
        rules={
            SwinBackbone: _mona(r'stages\.(\d+\.blocks\.\d+)\.mona1', r'stages\.(\d+\.blocks\.\d+)\.mona2'),
        },
    ),
    Layout(
        name="SSF's",
        method='SSF',
        mark=r'(^|\.)ssf_(scale|shift)_\d$',
        looks_like='*.ssf_scale_1',
        rules={
            SwinBackbone: (*SSF_SWIN, *SWIN),
            ViTBackbone: (*_ssf_vit('qkv', 'proj'), *MMPRETRAIN_VIT),
            MMSegViTBackbone: (*_ssf_vit('attn', 'attn'), *MMSEG_VIT),
        },
    ),
    Layout(
        name="CVPT's",
        method='CVPT',
        mark=r'(^|\.)Prompt_Tokens$',
        looks_like='Prompt_Tokens',
        rules={ViTBackbone: (*CVPT, *MMPRETRAIN_VIT), MMSegViTBackbone: (*CVPT, *MMSEG_VIT)},
    ),
)
