"""Swin of mmdet, mmseg and mmpretrain: tokens (B, N, C) with their grid (H, W), attention in windows."""

from torch import Tensor, nn

from mmpeft.hosts.backbone import Backbone
from mmpeft.hosts.block import FFN, NORM, GridBlock
from mmpeft.hosts.call import Call
from mmpeft.hosts.host import adapt_as, qualified_name
from mmpeft.hosts.windows import WindowAttention
from mmpeft.methods.cvpt import Attention
from mmpeft.sites import BRANCH_SITES, STREAM_SITES

BLOCK = r'stages\.\d+\.blocks\.\d+'
FILES = ('mmdet.models.backbones.swin', 'mmseg.models.backbones.swin', 'mmpretrain.models.utils.attention')
SHIFTED = tuple(f'{file}.ShiftWindowMSA' for file in FILES)
WINDOWS = tuple(f'{file}.WindowMSA' for file in FILES)


class SwinBlock(GridBlock):
    """A block whose attention is in windows."""

    parts = {'norm1': NORM, 'attn': SHIFTED, 'attn.w_msa': WINDOWS, 'norm2': NORM, 'ffn': FFN}

    def attention(self, y: Tensor, call: Call) -> Tensor:
        return self.attn(y, call.hw_shape)

    def attention_weights(self) -> Attention:
        attn = self.attn.w_msa
        return Attention.of_fused(attn.qkv.weight, attn.qkv.bias, attn.proj, attn.num_heads, attn.proj_drop.p)


class SwinBackbone(Backbone):
    """Swin: the norms of its outputs are not in a classifier's file and start at 1 and 0."""

    block = BLOCK
    fresh = r'norm\d+\.(weight|bias)'
    bias_options = {rf'{BLOCK}\.attn\.w_msa\.qkv\.bias': 'qkv_bias'}
    places = {
        **dict.fromkeys((*STREAM_SITES, *BRANCH_SITES), BLOCK),
        'patch_embed': r'patch_embed\.projection',
        'patch_norm': r'patch_embed\.norm',
        'norm1': rf'{BLOCK}\.norm1',
        'qkv': rf'{BLOCK}\.attn\.w_msa\.qkv',
        'proj': rf'{BLOCK}\.attn\.w_msa\.proj',
        'norm2': rf'{BLOCK}\.norm2',
        'fc1': rf'{BLOCK}\.ffn\.layers\.0\.0',
        'fc2': rf'{BLOCK}\.ffn\.layers\.1',
        'merge_norm': r'stages\.\d+\.downsample\.norm',
        'reduction': r'stages\.\d+\.downsample\.reduction',
        'output_norm': r'norm\d+',
    }

    def wire(self) -> None:
        for name in self.blocks_of(self):
            attn = self.get_submodule(name).attn
            if qualified_name(type(attn)) in SHIFTED and qualified_name(type(attn.w_msa)) in WINDOWS:
                adapt_as(attn, WindowAttention)

    def norm_before(self, name: str) -> nn.LayerNorm | None:
        """Patch merging: its reduction has half as many rows as columns, and stock Swin gives it no bias."""
        return self.get_submodule(name.removesuffix('reduction') + 'norm') if name.endswith('.reduction') else None
