"""EVA-02 of mmpretrain: a ViT whose attention rotates queries and keys by their place in the grid."""

from collections.abc import Callable

from torch import Tensor, nn

from mmpeft.hosts.vit import BLOCK, MMPretrainBlock, ViTBackbone


class EVA02Block(MMPretrainBlock):
    """A block that is given the grid, as the patch embedding tells it too."""

    def forward(self, x: Tensor, patch_resolution: tuple[int, int]) -> Tensor:
        return super().forward(x)

    def attention(self, y: Tensor, hw_shape: tuple[int, int] | None) -> Tensor:
        return self.drop_path(self.attn(y, hw_shape))

    def ffn_parts(self) -> tuple[Callable, Callable, Callable]:
        return self.mlp, nn.Identity(), self.drop_path


class EVA02Backbone(ViTBackbone):
    """EVA-02: no prompts among its tokens, because a rotation is known for those of the grid alone."""

    places = {
        **{site: place for site, place in ViTBackbone.places.items() if site != 'input'},
        'norm1': rf'{BLOCK}\.norm1',
        'norm2': rf'{BLOCK}\.norm2',
        'fc1': rf'{BLOCK}\.mlp\.w12',
        'fc2': rf'{BLOCK}\.mlp\.w3',
    }
