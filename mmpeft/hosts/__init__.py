"""How each known block and backbone is wired: which sites it offers and how its forward visits them.

``host.py`` says what a host is, ``block.py`` what that of a transformer block, ``backbone.py`` what that of a backbone.
"""

from mmpeft.hosts import leaf
from mmpeft.hosts.backbone import Backbone
from mmpeft.hosts.beit import ATTENTION, BEiTBackbone, BEiTBlock, MAEBackbone, RelativeAttention
from mmpeft.hosts.block import PreNormBlock
from mmpeft.hosts.call import Call
from mmpeft.hosts.convnext import ConvNeXtBackbone, ConvNeXtBlock, LayerNorm2d
from mmpeft.hosts.deit3 import DeiT3Backbone, DeiT3Block
from mmpeft.hosts.eva02 import EVA02Backbone, EVA02Block
from mmpeft.hosts.host import Host, adapters_of
from mmpeft.hosts.pyramid import MixBlock, PVTBlock, PyramidBackbone
from mmpeft.hosts.registration import (
    BACKBONES,
    BLOCKS,
    adapt,
    adapted,
    find_backbone,
    find_owner,
    register_host,
)
from mmpeft.hosts.sam import SAMBackbone, SAMBlock
from mmpeft.hosts.swin import SwinBackbone, SwinBlock
from mmpeft.hosts.swin_v2 import CosineAttention, SwinV2Backbone, SwinV2Block
from mmpeft.hosts.timm_backbone import TimmBackbone
from mmpeft.hosts.timm_swin import TimmSwinBlock, TimmSwinV2Block
from mmpeft.hosts.timm_vit import EvaBlock, TimmAttention, TimmBlock
from mmpeft.hosts.twins import GlobalAttention, LocalBlock, MMPretrainGlobalBlock, MMSegGlobalBlock, TwinsBackbone
from mmpeft.hosts.vit import MMPretrainBlock, MMSegBlock, MMSegViTBackbone, SelfAttention, ViTBackbone

KNOWN = {
    leaf.Linear: ['torch.nn.modules.linear.Linear'],
    leaf.LayerNorm: ['torch.nn.modules.normalization.LayerNorm'],
    leaf.Conv2d: ['torch.nn.modules.conv.Conv2d'],
    SelfAttention: ['torch.nn.modules.activation.MultiheadAttention'],
    LayerNorm2d: ['mmpretrain.models.utils.norm.LayerNorm2d'],
    SwinBlock: [
        'mmdet.models.backbones.swin.SwinBlock',
        'mmseg.models.backbones.swin.SwinBlock',
        'mmpretrain.models.backbones.swin_transformer.SwinBlock',
    ],
    MMSegBlock: ['mmseg.models.backbones.vit.TransformerEncoderLayer'],
    MMPretrainBlock: ['mmpretrain.models.backbones.vision_transformer.TransformerEncoderLayer'],
    RelativeAttention: [*ATTENTION],
    CosineAttention: ['mmpretrain.models.utils.attention.WindowMSAV2'],
    SwinV2Block: ['mmpretrain.models.backbones.swin_transformer_v2.SwinBlockV2'],
    BEiTBlock: [
        'mmseg.models.backbones.beit.BEiTTransformerEncoderLayer',
        'mmpretrain.models.backbones.beit.BEiTTransformerEncoderLayer',
    ],
    DeiT3Block: ['mmpretrain.models.backbones.deit3.DeiT3TransformerEncoderLayer'],
    SAMBlock: ['mmpretrain.models.backbones.vit_sam.TransformerEncoderLayer'],
    MixBlock: ['mmseg.models.backbones.mit.TransformerEncoderLayer'],
    PVTBlock: ['mmdet.models.backbones.pvt.PVTEncoderLayer'],
    LocalBlock: [
        'mmseg.models.backbones.twins.LSAEncoderLayer',
        'mmpretrain.models.backbones.twins.LSAEncoderLayer',
    ],
    MMSegGlobalBlock: ['mmseg.models.backbones.twins.GSAEncoderLayer'],
    MMPretrainGlobalBlock: ['mmpretrain.models.backbones.twins.GSAEncoderLayer'],
    GlobalAttention: ['mmpretrain.models.backbones.twins.GlobalSubsampledAttention'],
    ConvNeXtBlock: ['mmpretrain.models.backbones.convnext.ConvNeXtBlock'],
    EVA02Block: ['mmpretrain.models.backbones.vit_eva02.EVA02EndcoderLayer'],
    SwinBackbone: [
        'mmdet.models.backbones.swin.SwinTransformer',
        'mmseg.models.backbones.swin.SwinTransformer',
        'mmpretrain.models.backbones.swin_transformer.SwinTransformer',
    ],
    SwinV2Backbone: ['mmpretrain.models.backbones.swin_transformer_v2.SwinTransformerV2'],
    BEiTBackbone: ['mmseg.models.backbones.beit.BEiT', 'mmpretrain.models.backbones.beit.BEiTViT'],
    MAEBackbone: ['mmseg.models.backbones.mae.MAE'],
    DeiT3Backbone: ['mmpretrain.models.backbones.deit3.DeiT3'],
    SAMBackbone: ['mmpretrain.models.backbones.vit_sam.ViTSAM'],
    MMSegViTBackbone: ['mmseg.models.backbones.vit.VisionTransformer'],
    ViTBackbone: ['mmpretrain.models.backbones.vision_transformer.VisionTransformer'],
    EVA02Backbone: ['mmpretrain.models.backbones.vit_eva02.ViTEVA02'],
    PyramidBackbone: [
        'mmseg.models.backbones.mit.MixVisionTransformer',
        'mmdet.models.backbones.pvt.PyramidVisionTransformer',
    ],
    TwinsBackbone: ['mmseg.models.backbones.twins.PCPVT', 'mmpretrain.models.backbones.twins.PCPVT'],
    TimmAttention: [
        'timm.layers.attention.Attention',
        'timm.layers.attention.AttentionRope',
        'timm.models.eva.EvaAttention',
        'timm.models.swin_transformer.WindowAttention',
        'timm.models.swin_transformer_v2.WindowAttention',
    ],
    TimmBlock: ['timm.models.vision_transformer.Block'],
    EvaBlock: ['timm.models.eva.EvaBlock'],
    TimmSwinBlock: ['timm.models.swin_transformer.SwinTransformerBlock'],
    TimmSwinV2Block: ['timm.models.swin_transformer_v2.SwinTransformerV2Block'],
    TimmBackbone: [
        'mmpretrain.models.backbones.timm_backbone.TIMMBackbone',
        'mmseg.models.backbones.timm_backbone.TIMMBackbone',
    ],
    ConvNeXtBackbone: ['mmpretrain.models.backbones.convnext.ConvNeXt'],
}
for _host, _stock in KNOWN.items():
    register_host(*_stock)(_host)

__all__ = [
    'BACKBONES',
    'BLOCKS',
    'Backbone',
    'Call',
    'Host',
    'PreNormBlock',
    'adapt',
    'adapted',
    'adapters_of',
    'find_backbone',
    'find_owner',
    'register_host',
]
