"""ConvNeXt of mmpretrain: maps (B, C, H, W), and blocks of layers without attention."""

from torch import Tensor

from mmpeft.hosts.backbone import Backbone
from mmpeft.hosts.leaf import LayerNorm

BLOCK = r'stages\.\d+\.\d+'


class LayerNorm2d(LayerNorm):
    """A norm over the channels of maps, which each call says are first or last; its adapter sees them last."""

    def forward(self, x: Tensor, data_format: str = 'channel_first') -> Tensor:
        if data_format != 'channel_first':
            return super().forward(x, data_format=data_format)
        return super().forward(x.movedim(1, -1), data_format='channel_last').movedim(-1, 1).contiguous()


class ConvNeXtBackbone(Backbone):
    """ConvNeXt: the norms of its outputs, the last one excepted, are in no classifier's file and start at 1 and 0."""

    fresh = r'norm\d+\.(weight|bias)'
    block = BLOCK
    places = {
        'patch_embed': r'downsample_layers\.0\.0',
        'patch_norm': r'downsample_layers\.0\.1',
        'depthwise': rf'{BLOCK}\.depthwise_conv',
        'norm2': rf'{BLOCK}\.norm',
        'fc1': rf'{BLOCK}\.pointwise_conv1',
        'fc2': rf'{BLOCK}\.pointwise_conv2',
        'merge_norm': r'downsample_layers\.[1-9]\.0',
        'reduction': r'downsample_layers\.[1-9]\.1',
        'output_norm': r'norm\d+',
    }
