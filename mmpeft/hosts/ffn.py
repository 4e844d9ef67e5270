"""The feed-forward half of a block, whose sites lie inside mmcv's FFN module."""

from torch import Tensor

from mmpeft.hosts.host import Host


def feed_forward(block: Host, y: Tensor, x: Tensor, hw_shape: tuple[int, int] | None) -> Tensor:
    """``x`` plus the feed-forward of ``y``, the normalised ``x``; ``ffn_branch`` lies before the drop path."""
    y = block.at('ffn_input', y, y, hw_shape)
    if 'ffn_branch' in block.adapters:
        branch = block.ffn.gamma2(block.ffn.layers(y))
        out = x + block.ffn.dropout_layer(block.at('ffn_branch', branch, branch, hw_shape))
    else:
        out = block.ffn(y, identity=x)
    return block.at('beside_ffn', out, x, hw_shape)
