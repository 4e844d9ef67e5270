"""ConvNeXt of mmpretrain: maps (B, C, H, W), and blocks of layers without attention."""

from torch import Tensor, nn

from mmpeft.hosts.backbone import Backbone
from mmpeft.hosts.block import Block
from mmpeft.hosts.call import Call, current_call
from mmpeft.hosts.leaf import LayerNorm

BLOCK = r'stages\.\d+\.\d+'


class ConvNeXtBlock(Block):
    """A block of one branch, which has the sites of a feed-forward; adapters see the map as tokens on its grid."""

    parts = {'norm': ('mmpretrain.models.utils.norm.LayerNorm2d',)}

    @staticmethod
    def sizes(module: nn.Module, site: str) -> dict[str, int]:
        return dict(dim=module.depthwise_conv.out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.checkpointed(x, current_call().on_grid(x.shape[2:]))

    def block_forward(self, x: Tensor, call: Call) -> Tensor:
        branch = self.branch(x)
        out = x + self.drop_path(self.at('ffn_branch', branch, branch, call))
        out = self.at('beside_ffn', out, x, call)
        return self.at('after_ffn', out, out, call)

    def branch(self, x: Tensor) -> Tensor:
        """What the block adds to the map, drop path aside."""
        y, last = self.depthwise_conv(x), self.linear_pw_conv
        form = dict(data_format='channel_last' if last else 'channel_first')
        y = self.norm(y.permute(0, 2, 3, 1) if last else y, **form)
        y = self.act(self.pointwise_conv1(y))
        y = self.pointwise_conv2(y if self.grn is None else self.grn(y, **form))
        y = y.permute(0, 3, 1, 2) if last else y
        return y if self.gamma is None else y.mul(self.gamma.view(1, -1, 1, 1))

    def run(self, adapter: nn.Module, x: Tensor, call: Call) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        return super().run(adapter, tokens, call).transpose(1, 2).unflatten(2, call.hw_shape)


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
        **dict.fromkeys(('ffn_branch', 'beside_ffn', 'after_ffn'), BLOCK),
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
