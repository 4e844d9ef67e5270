"""Swin of mmdet, mmseg and mmpretrain: pre-norm blocks on tokens (B, N, C) with their grid (H, W)."""

from torch import Tensor, is_grad_enabled, nn
from torch.utils.checkpoint import checkpoint

from mmpeft.hosts.backbone import Backbone
from mmpeft.hosts.host import Host


def _channels(block: nn.Module) -> int:
    return block.norm1.normalized_shape[0]


class SwinBlock(Host):
    """The stock forward of a Swin block with the stream sites named.

    Checkpointing does not ask whether the input needs a gradient, as the stock block does: behind a frozen stem it
    does not, while the adapters do.
    """

    sites = {'before_attn': _channels, 'after_attn': _channels, 'after_ffn': _channels}

    def forward(self, x: Tensor, hw_shape: tuple[int, int]) -> Tensor:
        if self.with_cp and is_grad_enabled():
            return checkpoint(self.block_forward, x, hw_shape, use_reentrant=False)
        return self.block_forward(x, hw_shape)

    def block_forward(self, x: Tensor, hw_shape: tuple[int, int]) -> Tensor:
        x = self.at('before_attn', x, hw_shape)
        x = self.attn(self.norm1(x), hw_shape) + x
        x = self.at('after_attn', x, hw_shape)
        x = self.ffn(self.norm2(x), identity=x)
        return self.at('after_ffn', x, hw_shape)


class SwinBackbone(Backbone):
    """Swin: the norms of its outputs are not in a classifier's file and start at 1 and 0."""

    fresh = r'norm\d+\.(weight|bias)'
