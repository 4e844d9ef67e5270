"""How each known block and backbone is wired: which sites it offers and how its forward visits them."""

from torch import nn

from mmpeft.hosts import leaf
from mmpeft.hosts.backbone import Backbone
from mmpeft.hosts.convnext import ConvNeXtBackbone, LayerNorm2d
from mmpeft.hosts.eva02 import EVA02Backbone, EVA02Block
from mmpeft.hosts.host import Host, adapt_as, adapters_of, hidden_adapters, qualified_name, subclass
from mmpeft.hosts.swin import SwinBackbone, SwinBlock
from mmpeft.hosts.vit import MMPretrainBlock, MMSegBlock, MMSegViTBackbone, SelfAttention, ViTBackbone

# Blocks, and the layers that one library alone has.
BLOCKS = {
    'mmdet.models.backbones.swin.SwinBlock': SwinBlock,
    'mmseg.models.backbones.swin.SwinBlock': SwinBlock,
    'mmpretrain.models.backbones.swin_transformer.SwinBlock': SwinBlock,
    'mmseg.models.backbones.vit.TransformerEncoderLayer': MMSegBlock,
    'mmpretrain.models.backbones.vision_transformer.TransformerEncoderLayer': MMPretrainBlock,
    'mmpretrain.models.backbones.vit_eva02.EVA02EndcoderLayer': EVA02Block,
    'mmpretrain.models.utils.norm.LayerNorm2d': LayerNorm2d,
}
LAYERS = {
    nn.Linear: leaf.Linear,
    nn.LayerNorm: leaf.LayerNorm,
    nn.Conv2d: leaf.Conv2d,
    nn.MultiheadAttention: SelfAttention,
}
BACKBONES = {
    'mmdet.models.backbones.swin.SwinTransformer': SwinBackbone,
    'mmseg.models.backbones.swin.SwinTransformer': SwinBackbone,
    'mmpretrain.models.backbones.swin_transformer.SwinTransformer': SwinBackbone,
    'mmseg.models.backbones.vit.VisionTransformer': MMSegViTBackbone,
    'mmpretrain.models.backbones.vision_transformer.VisionTransformer': ViTBackbone,
    'mmpretrain.models.backbones.vit_eva02.ViTEVA02': EVA02Backbone,
    'mmpretrain.models.backbones.convnext.ConvNeXt': ConvNeXtBackbone,
}


def find_backbone(cls: type) -> type[Backbone] | None:
    """The host of a stock backbone class or of a subclass of one, or None."""
    return next((BACKBONES[name] for name in map(qualified_name, cls.__mro__) if name in BACKBONES), None)


def find_owner(cls: type) -> type[Host] | None:
    """The host of a stock block or layer class, or None; a block with a forward of its own is not known."""
    for base in cls.__mro__:
        if qualified_name(base) in BLOCKS:
            return BLOCKS[qualified_name(base)] if cls.forward is base.forward else None
        if base in LAYERS:
            return LAYERS[base]
    return None


def adapted(cls: type) -> type:
    """The one subclass of the stock class ``cls`` that carries its host and keeps the stock name.

    Raises:
        ValueError: No host describes ``cls``.
    """
    return subclass(cls, _host_of(cls))


def adapt(module: nn.Module) -> None:
    """Swap the class of ``module`` in place for ``adapted`` of it, and give it a place for adapters.

    Raises:
        ValueError: No host describes its class.
    """
    adapt_as(module, _host_of(type(module)))


def _host_of(cls: type) -> type[Host]:
    host = find_owner(cls) or find_backbone(cls)
    if host is None:
        known = ', '.join([*BACKBONES, *BLOCKS, *(layer.__name__ for layer in LAYERS)])
        raise ValueError(
            f'No host describes {qualified_name(cls)}; known: {known}. To add one, write a file beside '
            'mmpeft/hosts/swin.py.'
        )
    return host


__all__ = [
    'BACKBONES',
    'BLOCKS',
    'Backbone',
    'Host',
    'adapt',
    'adapted',
    'adapters_of',
    'find_backbone',
    'find_owner',
    'hidden_adapters',
]
