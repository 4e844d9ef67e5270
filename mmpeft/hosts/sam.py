"""SAM's image encoder of mmpretrain: a ViT without a class token, whose tokens lie in a map (B, H, W, C)."""

import torch.nn.functional as F
from torch import Tensor

from mmpeft.hosts.block import FFN, NORM, PreNormBlock
from mmpeft.hosts.call import Call, current_call
from mmpeft.hosts.vit import NO_PROMPTS, ViTBackbone
from mmpeft.methods.cvpt import Attention


class SAMBlock(PreNormBlock):
    """A block with attention in windows or in the whole map; its sites see the tokens row by row, (B, H W, C)."""

    parts = {'ln1': NORM, 'attn': ('mmpretrain.models.backbones.vit_sam.Attention',), 'ln2': NORM, 'ffn': FFN}

    def forward(self, x: Tensor) -> Tensor:
        hw_shape = tuple(x.shape[1:3])
        return self.checkpointed(x.flatten(1, 2), current_call().on_grid(hw_shape)).unflatten(1, hw_shape)

    def attention(self, y: Tensor, call: Call) -> Tensor:
        (height, width), size = call.hw_shape, self.window_size
        y = y.unflatten(1, call.hw_shape)
        if not size:
            return self.attn(y).flatten(1, 2)
        padded = F.pad(y, (0, 0, 0, -width % size, 0, -height % size))
        windows = padded.unflatten(2, (-1, size)).unflatten(1, (-1, size)).transpose(2, 3)
        out = self.attn(windows.flatten(0, 2)).view(windows.shape)
        return out.transpose(2, 3).flatten(3, 4).flatten(1, 2)[:, :height, :width].flatten(1, 2)

    def attention_weights(self) -> Attention:
        attn = self.attn
        return Attention.of_fused(attn.qkv.weight, attn.qkv.bias, attn.proj, attn.num_heads)


class SAMBackbone(ViTBackbone):
    """SAM: no prompts among its tokens, which are those of a map; behind them are convolutions with norms."""

    tables = rf'{ViTBackbone.tables}|.*\.rel_pos_[hw]'
    places = {**NO_PROMPTS, 'output_norm': r'channel_reduction\.[13]'}

    def extra_tokens(self) -> int:
        return 0
