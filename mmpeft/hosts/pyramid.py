"""SegFormer's MiT, and PVT: tokens (B, N, C) with their grid, keys of a smaller map, feed-forwards with maps."""

from collections.abc import Callable

from torch import Tensor, nn

from mmpeft.hosts.backbone import Backbone
from mmpeft.hosts.block import NORM, GridBlock
from mmpeft.hosts.call import Call
from mmpeft.hosts.vit import TORCH_ATTENTION, SelfAttention
from mmpeft.methods.cvpt import Attention
from mmpeft.sites import BRANCH_SITES, STREAM_SITES

BLOCK = r'layers\.\d+\.1\.\d+'
REDUCED = 'mmseg.models.backbones.mit.EfficientMultiheadAttention'
POSITIONS = 'mmdet.models.backbones.pvt.AbsolutePositionEmbedding'


class MixBlock(GridBlock):
    """A block whose keys are of a smaller map, as whose tokens prompts are read, and whose feed-forward convolves."""

    tokenwise = False
    parts = {
        'norm1': NORM,
        'attn': (REDUCED, 'mmdet.models.backbones.pvt.SpatialReductionAttention'),
        'attn.attn': TORCH_ATTENTION,
        'norm2': NORM,
        'ffn': ('mmseg.models.backbones.mit.MixFFN', 'mmdet.models.backbones.pvt.MixFFN'),
    }

    def attention(self, y: Tensor, call: Call) -> Tensor:
        return self.attn(y, call.hw_shape, identity=0)

    def attention_weights(self) -> Attention:
        attn = self.attn.attn
        weights = attn.in_proj_weight, attn.in_proj_bias, attn.out_proj
        return Attention.of_fused(*weights, attn.num_heads, self.attn.proj_drop.p)

    def ffn_parts(self, call: Call) -> tuple[Callable, Callable, Callable]:
        def layers(y: Tensor) -> Tensor:
            maps = self.laid_out(y.transpose(1, 2).unflatten(2, call.hw_shape))
            return self.laid_out(self.ffn.layers(maps).flatten(2).transpose(1, 2))

        return layers, nn.Identity(), self.ffn.dropout_layer

    def laid_out(self, x: Tensor) -> Tensor:
        """Maps made of tokens, or tokens of maps, as the stock block has them in memory."""
        return x


class PVTBlock(MixBlock):
    """mmdet's block, which copies maps and tokens into order."""

    def laid_out(self, x: Tensor) -> Tensor:
        return x.contiguous()


class PyramidBackbone(Backbone):
    """MiT, PVT and PVTv2: each stage is a patch embedding, its blocks and a norm, if it has one."""

    block = BLOCK
    skipped = (POSITIONS,)
    bias_options = {rf'{BLOCK}\.attn\.attn\.(in_proj_bias|out_proj\.bias)': 'qkv_bias'}
    places = {
        **dict.fromkeys((*STREAM_SITES, *BRANCH_SITES), BLOCK),
        'patch_embed': r'layers\.\d+\.0\.projection',
        'patch_norm': r'layers\.\d+\.0\.norm',
        'norm1': rf'{BLOCK}\.norm1',
        'qkv': rf'{BLOCK}\.attn\.attn',
        'proj': rf'{BLOCK}\.attn\.attn',
        'norm2': rf'{BLOCK}\.norm2',
        'fc1': rf'{BLOCK}\.ffn\.layers\.0',
        'depthwise': rf'{BLOCK}\.ffn\.layers\.1',
        'fc2': rf'{BLOCK}\.ffn\.layers\.[34]',
        'output_norm': r'layers\.\d+\.2',
    }

    def wire(self) -> None:
        self.adapt_all(TORCH_ATTENTION, SelfAttention)
        for module in self.modules():
            if isinstance(module, SelfAttention):
                module.reduced = True
