"""Blocks of timm's Swin and Swin V2: maps (B, H, W, C) with their channels last."""

import math
from collections.abc import Callable
from dataclasses import replace

from torch import Tensor, nn

from mmpeft.hosts.block import PreNormBlock
from mmpeft.hosts.call import Call, current_call
from mmpeft.hosts.timm_vit import MLPS, NORMS, weights_of
from mmpeft.methods.cvpt import Attention


class TimmSwinBlock(PreNormBlock):
    """A block of ``timm.models.swin_transformer``; its adapters see the tokens of the map."""

    parts = {'norm1': NORMS, 'attn': ('timm.models.swin_transformer.WindowAttention',), 'norm2': NORMS, 'mlp': MLPS}

    def forward(self, x: Tensor) -> Tensor:
        call = current_call().on_grid(x.shape[1:3])
        return self.checkpointed(x.flatten(1, 2), call).unflatten(1, call.hw_shape)

    def windows(self, y: Tensor, call: Call) -> Tensor:
        """Attention in the windows of the map."""
        return self._attn(y.unflatten(1, call.hw_shape)).flatten(1, 2)

    def attention(self, y: Tensor, call: Call) -> Tensor:
        return self.drop_path1(self.windows(y, call))

    def attention_weights(self) -> Attention:
        return weights_of(self.attn)

    def ffn_parts(self, call: Call) -> tuple[Callable, Callable, Callable]:
        return self.mlp, nn.Identity(), self.drop_path2


class TimmSwinV2Block(TimmSwinBlock):
    """A block whose norms come after attention and feed-forward, and whose scores are cosines."""

    parts = TimmSwinBlock.parts | {'attn': ('timm.models.swin_transformer_v2.WindowAttention',)}

    def attention_branch(self, x: Tensor, call: Call) -> Tensor:
        return self.drop_path1(self.norm1(self.windows(x, call)))

    def before_ffn(self, x: Tensor) -> Tensor:
        return x

    def attention_weights(self) -> Attention:
        return replace(weights_of(self.attn), cosine_scale=self.attn.logit_scale.clamp(max=math.log(100)).exp())

    def ffn_parts(self, call: Call) -> tuple[Callable, Callable, Callable]:
        return self.mlp, self.norm2, self.drop_path2
