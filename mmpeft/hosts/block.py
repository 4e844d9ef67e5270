"""Blocks that can be checkpointed; a pre-norm transformer block with its stream and branch sites named."""

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor, is_grad_enabled, nn
from torch.utils.checkpoint import checkpoint

from mmpeft.compiling import compiled
from mmpeft.hosts.call import Call, current_call, opened
from mmpeft.hosts.host import Host
from mmpeft.methods.cvpt import Attention

# What a block may be made of, by the names of classes.
NORM = ('torch.nn.modules.normalization.LayerNorm',)
FFN = ('mmcv.cnn.bricks.transformer.FFN',)


class Block(Host):
    """A block whose sites lie inside what its ``with_cp`` checkpoints.

    That does not ask whether the input needs a gradient, as stock blocks do: behind a frozen stem it does not, while
    the adapters do.
    """

    with_cp = False

    def checkpointed(self, x: Tensor, call: Call) -> Tensor:
        if self.with_cp and is_grad_enabled():
            return checkpoint(self.block_forward, x, call, use_reentrant=False)
        return self.block_forward(x, call)

    def block_forward(self, x: Tensor, call: Call) -> Tensor:
        """What the block computes, checkpointing aside."""
        raise NotImplementedError


class PreNormBlock(Block):
    """The stock forward ``x + attn(norm1(x))``, ``x + ffn(norm2(x))``, bit for bit where no adapter sits.

    A subclass says what its stock class calls differently: its ``forward`` makes or takes the call and hands it to
    ``checkpointed``, and ``attention`` and, if need be, ``ffn_parts`` compute with the modules of the block. One whose
    norms come after attention and feed-forward overrides ``attention_branch`` and ``before_ffn``, too.

    ``recompute_ffn`` checkpoints the norm and the layers of the feed-forward alone; where the whole block is
    checkpointed it has no effect. With ``compiles`` the norm and the layers of the feed-forward run by compiled code,
    too, if they are ``tokenwise``: if they compute each token by itself.
    """

    state = ('recompute_ffn', 'compiles')
    tokenwise = True
    recompute_ffn = False

    @staticmethod
    def sizes(module: nn.Module, site: str) -> dict[str, int]:
        return dict(dim=module.norm1.normalized_shape[0])

    def attention(self, y: Tensor, call: Call) -> Tensor:
        """What attention adds to the stream for ``y``, the normalised stream; drop path included."""
        raise NotImplementedError

    def attention_weights(self) -> Attention:
        """The weights of the block's self-attention as they are now."""
        raise NotImplementedError

    def tell(self, what: str, adapter: nn.Module, call: Call) -> Any:
        return self.attention_weights() if what == 'attention' else super().tell(what, adapter, call)

    def attention_branch(self, x: Tensor, call: Call) -> Tensor:
        """What is added to the stream ``x`` by attention and its norm."""
        return self.attention(self.norm1(x), call)

    def before_ffn(self, x: Tensor) -> Tensor:
        """What the layers of the feed-forward read of the stream ``x``."""
        return self.norm2(x)

    def block_forward(self, x: Tensor, call: Call) -> Tensor:
        x = self.at('before_attn', x, x, call)
        branch = self.attention_branch(x, call)
        branch = self.at('attn_branch', branch, branch, call)
        x = x + self.at('beside_attn', branch, x, call)
        x = self.at('after_attn', x, x, call)
        out = self.at('beside_ffn', self.feed_forward(x, call), x, call)
        return self.at('after_ffn', out, out, call)

    def feed_forward(self, x: Tensor, call: Call) -> Tensor:
        """``x`` plus the feed-forward of its norm; the site ``ffn_branch`` lies before the drop path."""
        layers, scale, drop = self.ffn_parts(call)

        def branch_of(x: Tensor) -> Tensor:
            if self.compiles and self.tokenwise and 'ffn_input' not in self.adapters:
                # Layers of compiled code are told nothing: they cast, and their adapters compose, by themselves.
                with opened(Call()):
                    branch = compiled(_branch, self, x, layers)
                if branch is not None:
                    return branch
            y = self.before_ffn(x)
            return layers(self.at('ffn_input', y, y, call))

        if self.recompute_ffn and not self.with_cp and is_grad_enabled():
            # What comes after the layers is left out: recomputing then ends ahead of the last of them.
            branch = checkpoint(branch_of, x, use_reentrant=False)
        else:
            branch = branch_of(x)
        branch = scale(branch)
        return x + drop(self.at('ffn_branch', branch, branch, call))

    def ffn_parts(self, call: Call) -> tuple[Callable, Callable, Callable]:
        """The layers of the feed-forward, its layer scale, and its drop path."""
        if hasattr(self.ffn, 'layers'):
            return self.ffn.layers, self.ffn.gamma2, self.ffn.dropout_layer
        return partial(self.ffn, identity=0), nn.Identity(), self.ffn.dropout_layer


class GridBlock(PreNormBlock):
    """A block that is given the grid with its tokens."""

    def forward(self, x: Tensor, hw_shape: tuple[int, int]) -> Tensor:
        return self.checkpointed(x, current_call().on_grid(hw_shape))


def _branch(block: PreNormBlock, x: Tensor, layers: Callable) -> Tensor:
    """What the layers of the feed-forward make of the stream; drop path comes later and differs from block to block."""
    return layers(block.before_ffn(x))
