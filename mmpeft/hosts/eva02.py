"""EVA-02 of mmpretrain: a ViT whose attention rotates queries and keys by their place in the grid."""

from collections.abc import Callable

from torch import Tensor, nn

from mmpeft.hosts.block import NORM
from mmpeft.hosts.call import Call
from mmpeft.hosts.vit import BLOCK, NO_PROMPTS, SWIGLU, MMPretrainBlock, ViTBackbone


class EVA02Block(MMPretrainBlock):
    """A block that is given the grid, by which its attention rotates."""

    parts = {
        'norm1': NORM,
        'attn': ('mmpretrain.models.backbones.vit_eva02.AttentionWithRoPE',),
        'norm2': NORM,
        'mlp': SWIGLU,
    }

    def forward(self, x: Tensor, patch_resolution: tuple[int, int]) -> Tensor:
        return super().forward(x, patch_resolution=patch_resolution)

    def attention(self, y: Tensor, call: Call) -> Tensor:
        return self.drop_path(self.attn(y, **call.given))

    def ffn_parts(self, call: Call) -> tuple[Callable, Callable, Callable]:
        return self.mlp, nn.Identity(), self.drop_path


class EVA02Backbone(ViTBackbone):
    """EVA-02: no prompts among its tokens, because a rotation is known for those of the grid alone."""

    places = {
        **NO_PROMPTS,
        'norm1': rf'{BLOCK}\.norm1',
        'norm2': rf'{BLOCK}\.norm2',
        'fc1': rf'{BLOCK}\.mlp\.w12',
        'fc2': rf'{BLOCK}\.mlp\.w3',
    }
