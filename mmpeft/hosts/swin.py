"""Swin of mmdet, mmseg and mmpretrain: pre-norm blocks on tokens (B, N, C) with their grid (H, W)."""

from torch import Tensor, is_grad_enabled, nn
from torch.utils.checkpoint import checkpoint

from mmpeft.hosts.backbone import Backbone
from mmpeft.hosts.ffn import feed_forward
from mmpeft.hosts.host import Host
from mmpeft.sites import BRANCH_SITES, STREAM_SITES

BLOCK = r'stages\.\d+\.blocks\.\d+'


class SwinBlock(Host):
    """The stock forward of a Swin block with its stream and branch sites named.

    Checkpointing does not ask whether the input needs a gradient, as the stock block does: behind a frozen stem it
    does not, while the adapters do.
    """

    @staticmethod
    def sizes(module: nn.Module) -> dict[str, int]:
        return dict(dim=module.norm1.normalized_shape[0])

    def forward(self, x: Tensor, hw_shape: tuple[int, int]) -> Tensor:
        if self.with_cp and is_grad_enabled():
            return checkpoint(self.block_forward, x, hw_shape, use_reentrant=False)
        return self.block_forward(x, hw_shape)

    def block_forward(self, x: Tensor, hw_shape: tuple[int, int]) -> Tensor:
        x = self.at('before_attn', x, x, hw_shape)
        branch = self.attn(self.norm1(x), hw_shape)
        branch = self.at('attn_branch', branch, branch, hw_shape)
        x = self.at('beside_attn', branch, x, hw_shape) + x
        x = self.at('after_attn', x, x, hw_shape)
        x = feed_forward(self, self.norm2(x), x, hw_shape)
        return self.at('after_ffn', x, x, hw_shape)


class SwinBackbone(Backbone):
    """Swin: the norms of its outputs are not in a classifier's file and start at 1 and 0."""

    fresh = r'norm\d+\.(weight|bias)'
    places = {
        **dict.fromkeys((*STREAM_SITES, *BRANCH_SITES), BLOCK),
        'patch_embed': r'patch_embed\.projection',
        'patch_norm': r'patch_embed\.norm',
        'norm1': rf'{BLOCK}\.norm1',
        'qkv': rf'{BLOCK}\.attn\.w_msa\.qkv',
        'proj': rf'{BLOCK}\.attn\.w_msa\.proj',
        'norm2': rf'{BLOCK}\.norm2',
        'fc1': rf'{BLOCK}\.ffn\.layers\.0\.0',
        'fc2': rf'{BLOCK}\.ffn\.layers\.1',
        'merge_norm': r'stages\.\d+\.downsample\.norm',
        'reduction': r'stages\.\d+\.downsample\.reduction',
        'output_norm': r'norm\d+',
    }
