"""DeiT III of mmpretrain: a ViT with layer scales whose blocks read one norm twice."""

from torch import nn

from mmpeft.hosts.block import NORM
from mmpeft.hosts.vit import MMPretrainBlock, ViTBackbone


class DeiT3Block(MMPretrainBlock):
    """A block whose first norm stands before the feed-forward, too; the second one is in no computation."""

    parts = {
        'ln1': NORM,
        'attn': MMPretrainBlock.parts['attn'],
        'ffn': ('mmpretrain.models.backbones.deit3.DeiT3FFN',),
    }
    norm1 = norm2 = property(lambda self: self.ln1)

    @staticmethod
    def sizes(module: nn.Module, site: str) -> dict[str, int]:
        return dict(dim=module.ln1.normalized_shape[0])


class DeiT3Backbone(ViTBackbone):
    """DeiT III: an adapter at ``norm1`` acts wherever its norm does, and there is no ``norm2``."""

    places = {site: place for site, place in ViTBackbone.places.items() if site != 'norm2'}
