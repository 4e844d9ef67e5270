"""Swin V2 of mmpretrain: norms come after attention, feed-forward and patch merging; attention goes by the cosine."""

import math
from collections.abc import Callable
from dataclasses import replace

from torch import Tensor, nn

from mmpeft.hosts.beit import RelativeAttention
from mmpeft.hosts.block import FFN, NORM
from mmpeft.hosts.call import Call
from mmpeft.hosts.host import Names
from mmpeft.hosts.swin import BLOCK, SHIFTED, SwinBackbone, SwinBlock
from mmpeft.methods.cvpt import Attention, cosine

ATTENTION = ('mmpretrain.models.utils.attention.WindowMSAV2',)


class CosineAttention(RelativeAttention):
    """Attention in windows whose scores are cosines, up to rounding."""

    def layer_of(self, site: str) -> tuple[nn.Module, Names, Names]:
        # There is no bias of keys, and it would count: a cosine is not the same with it.
        return self, 'qkv.weight', ('q_bias', 'k_bias', 'v_bias')

    def weights(self) -> Attention:
        return replace(super().weights(), cosine_scale=self.cosine_scale())

    def cosine_scale(self) -> Tensor:
        """What cosines are multiplied by. Shape: ``(heads, 1, 1)``."""
        return self.logit_scale.clamp(max=math.log(100)).exp()

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        if not self.adapters and self.qkv.weight.requires_grad:
            return self.stock.forward(self, x, mask)
        q, k, v = self.heads(x)
        q, k = cosine(q, k, self.cosine_scale())
        table, index = self.cpb_mlp(self.relative_coords_table).flatten(0, 2), self.relative_position_index
        bias = 16 * table[index.flatten()].unflatten(0, index.shape).permute(2, 0, 1).sigmoid()
        if mask is not None:  # the windows of an image stand side by side, as its heads do
            bias = (bias + mask.unsqueeze(1)).flatten(0, 1)
            q, k, v = (part.unflatten(0, (-1, len(mask))).flatten(1, 2) for part in (q, k, v))
        return self.output(q, k, v, bias, scale=1.0)


class SwinV2Block(SwinBlock):
    """A block whose norms come before the additions to the stream; a third one, if it is there, ends the block.

    Sites are where they are in Swin. What is added to the stream, as ``attn_branch`` and ``ffn_branch`` see it, has
    been normalised here; ``ffn_input`` is the stream itself.
    """

    parts = {'norm1': NORM, 'attn': (SHIFTED[-1],), 'attn.w_msa': ATTENTION, 'norm2': NORM, 'ffn': FFN}

    def attention_branch(self, x: Tensor, call: Call) -> Tensor:
        return self.norm1(self.attention(x, call))

    def before_ffn(self, x: Tensor) -> Tensor:
        return x

    def ffn_parts(self, call: Call) -> tuple[Callable, Callable, Callable]:
        layers, scale, drop = super().ffn_parts(call)
        return layers, lambda y: self.norm2(drop(scale(y))), nn.Identity()

    def block_forward(self, x: Tensor, call: Call) -> Tensor:
        x = super().block_forward(x, call)
        return self.norm3(x) if self.extra_norm else x

    def attention_weights(self) -> Attention:
        return self.attn.w_msa.weights()


class SwinV2Backbone(SwinBackbone):
    """Swin V2: no norm comes before the reduction of patch merging."""

    bias_options = {}
    places = {**SwinBackbone.places, 'qkv': rf'{BLOCK}\.attn\.w_msa'}

    def wire(self) -> None:
        self.adapt_all(ATTENTION, CosineAttention)

    def norm_before(self, name: str) -> None:
        return None
