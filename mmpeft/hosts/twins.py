"""Twins of mmseg and mmpretrain: tokens (B, N, C) with their grid, attention in windows and to a smaller map."""

from collections.abc import Callable

from torch import Tensor

from mmpeft.hosts.block import FFN, NORM, GridBlock
from mmpeft.hosts.call import Call
from mmpeft.hosts.host import Host, layer_tensors
from mmpeft.hosts.pyramid import REDUCED, PyramidBackbone
from mmpeft.methods.cvpt import Attention
from mmpeft.sites import BRANCH_SITES, STREAM_SITES

BLOCK = r'(layers|stages)\.\d+\.\d+'
FILES = ('mmseg.models.backbones.twins', 'mmpretrain.models.backbones.twins')
LOCAL = tuple(f'{file}.LocallyGroupedSelfAttention' for file in FILES)
MMSEG_GLOBAL, MMPRETRAIN_GLOBAL = (f'{file}.GlobalSubsampledAttention' for file in FILES)


class LocalBlock(GridBlock):
    """A block whose attention is in windows; its drop path comes after those of attention and feed-forward."""

    parts = {'norm1': NORM, 'attn': LOCAL, 'norm2': NORM, 'ffn': FFN}

    def attention(self, y: Tensor, call: Call) -> Tensor:
        return self.drop_path(self.attn(y, call.hw_shape))

    def attention_weights(self) -> Attention:
        attn = self.attn
        return Attention.of_fused(attn.qkv.weight, attn.qkv.bias, attn.proj, attn.num_heads, attn.proj_drop.p)

    def ffn_parts(self, call: Call) -> tuple[Callable, Callable, Callable]:
        layers, scale, drop = super().ffn_parts(call)
        return layers, scale, lambda y: self.drop_path(drop(y))


class MMSegGlobalBlock(LocalBlock):
    """mmseg's block whose keys are of a smaller map; its attention would add the identity itself."""

    parts = {**LocalBlock.parts, 'attn': (REDUCED,), 'attn.attn': ('torch.nn.modules.activation.MultiheadAttention',)}

    def attention(self, y: Tensor, call: Call) -> Tensor:
        return self.drop_path(self.attn(y, call.hw_shape, identity=0.0))

    def attention_weights(self) -> Attention:
        attn = self.attn.attn
        weights = attn.in_proj_weight, attn.in_proj_bias, attn.out_proj
        return Attention.of_fused(*weights, attn.num_heads, self.attn.proj_drop.p)


class MMPretrainGlobalBlock(LocalBlock):
    """mmpretrain's block whose keys are of a smaller map."""

    parts = {**LocalBlock.parts, 'attn': (MMPRETRAIN_GLOBAL,)}

    def attention_weights(self) -> Attention:
        attn = self.attn
        fused = layer_tensors(GlobalAttention, attn, 'qkv')
        return Attention.of_fused(*fused, attn.proj, attn.num_heads, attn.proj_drop.p)


class GlobalAttention(Host):
    """mmpretrain's attention to a smaller map, whose queries have a layer of their own; both are the site ``qkv``."""

    @staticmethod
    def sizes(module: Host, site: str) -> dict[str, int]:
        dim = module.embed_dims
        return dict(dim=3 * dim, in_features=dim, out_features=3 * dim)

    def layer_of(self, site: str) -> tuple:
        return self, ('q.weight', 'kv.weight'), ('q.bias', 'kv.bias')

    def forward(self, x: Tensor, hw_shape: tuple[int, int]) -> Tensor:
        other = x
        if self.sr_ratio > 1:
            maps = x.transpose(1, 2).unflatten(2, hw_shape)
            other = self.norm(self.sr(maps).flatten(2).transpose(1, 2))
        parts = self.at_projections(x, other, *layer_tensors(GlobalAttention, self, 'qkv'))
        q, k, v = (part.unflatten(2, (self.num_heads, -1)).transpose(1, 2) for part in parts)
        dropout = self.attn_drop if self.training else 0.0
        y = self.scaled_dot_product_attention(q, k, v, dropout_p=dropout).transpose(1, 2).flatten(2)
        return self.out_drop(self.proj_drop(self.proj(y)))


class TwinsBackbone(PyramidBackbone):
    """PCPVT and SVT: the norms of outputs are not in every classifier's file and start at 1 and 0."""

    block = BLOCK
    fresh = r'(norm_list\.|norm_after_stage)\d+\.(weight|bias)'
    skipped = (*LOCAL, MMSEG_GLOBAL)
    bias_options = {rf'{BLOCK}\.attn\.(q\.bias|kv\.bias|qkv\.bias|attn\.in_proj_bias|attn\.out_proj\.bias)': 'qkv_bias'}
    places = {
        **dict.fromkeys((*STREAM_SITES, *BRANCH_SITES), BLOCK),
        'patch_embed': r'patch_embeds\.\d+\.projection',
        'patch_norm': r'patch_embeds\.\d+\.norm',
        'norm1': rf'{BLOCK}\.norm1',
        'qkv': rf'{BLOCK}\.attn(\.attn|\.qkv)?',
        'proj': rf'{BLOCK}\.attn\.(attn|proj)',
        'norm2': rf'{BLOCK}\.norm2',
        'fc1': rf'{BLOCK}\.ffn\.layers\.0\.0',
        'fc2': rf'{BLOCK}\.ffn\.layers\.1',
        'output_norm': r'norm_list\.\d+|norm_after_stage\d+',
    }
