"""CVPT: prompts that the tokens read by cross-attention, with the weights of the block's self-attention."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmpeft.methods.cvpt_function import FoldedAttention, Weights, attend
from mmpeft.methods.dropout import in_training
from mmpeft.methods.method import Method
from mmpeft.methods.shards import in_shards

PLACES = ('before_attn', 'beside_attn', 'after_attn', 'ffn_input', 'after_ffn')
PROJECTIONS = ('q', 'k', 'v', 'out')
# Operations of the folded form are up to a tenth slower than those of the plain one, whose products are wider.
MARGIN = 0.9


@dataclass(frozen=True, eq=False)
class Attention:
    """The weights of a multi-head self-attention as they are at this moment, for one call: they move and change.

    Weights are (C, C), as those of ``nn.Linear``; a bias may be None. ``out_dropout`` is the probability of the
    dropout after the output projection, and ``fused`` what the weights are views of, where they are. With a
    ``cosine_scale``, (heads, 1, 1), scores are cosines times that.
    """

    q_weight: Tensor
    q_bias: Tensor | None
    k_weight: Tensor
    k_bias: Tensor | None
    v_weight: Tensor
    v_bias: Tensor | None
    out_weight: Tensor
    out_bias: Tensor | None
    num_heads: int
    out_dropout: float = 0.0
    fused: tuple[Tensor, Tensor | None, nn.Linear] | None = None
    cosine_scale: Tensor | None = None

    def __post_init__(self) -> None:
        _check_whole(self.q_weight, self.k_weight, self.v_weight, self.out_weight)
        if len(self.q_weight) % self.num_heads:
            raise ValueError(f'{len(self.q_weight)} channels do not split into {self.num_heads} heads.')

    @classmethod
    def of_fused(
        cls, weight: Tensor, bias: Tensor | None, out: nn.Linear, num_heads: int, out_dropout: float = 0.0
    ) -> 'Attention':
        """The attention whose query, key and value rows stand in this order in one weight. Shape: ``(3 C, C)``."""
        _check_whole(weight)
        q, k, v = weight.chunk(3)
        q_bias, k_bias, v_bias = (None, None, None) if bias is None else bias.chunk(3)
        return cls(q, q_bias, k, k_bias, v, v_bias, out.weight, out.bias, num_heads, out_dropout, (weight, bias, out))

    def cast(self, cast: Callable[[Tensor | None], Tensor | None]) -> 'Attention':
        """The same with those frozen weights that ``Call.cast`` knows in the dtype of autocast."""
        if self.fused is None:
            return self
        weight, bias, out = self.fused
        attention = Attention.of_fused(cast(weight), cast(bias), out, self.num_heads, self.out_dropout)
        out_weight, out_bias = cast(out.weight), cast(out.bias)
        return replace(attention, out_weight=out_weight, out_bias=out_bias, cosine_scale=self.cosine_scale)


class CVPT(Method):
    """Add to the tokens what they read from learned prompts, ``x + attention(query=x, key=prompts, value=prompts)``.

    The attention has the weights of the self-attention of the same block, handed in at every call. It is computed
    as published or, where that takes clearly fewer operations, with the projections folded into the prompts; training
    runs that as one operation that keeps little for the backward pass and has no second derivatives.

    Args:
        dim: Channels C of the tokens.
        depth: Number of blocks with prompts; it sets the range of the starting values.
        num_prompts: Prompts P of this block. A single prompt adds the same vector to all tokens of an image.
        dropout: Probability of dropping a prompt's value in training, drawn anew for each sample.
        place: Site of the adapter. At ``'beside_attn'`` the host adds what is read, so ``x`` is not added here.
        share: Whether the cross-attention has the host's weights, or random weights of its own. Random weights that
            do not learn are what the authors' published segmentation code trains with.
        learn: Whether the weights of the cross-attention train. With ``share`` they are the host's plus a learned
            offset that starts at zero, so the host itself stays as it is.

    Shape: ``(B, N, C) -> (B, N, C)``

    Raises:
        ValueError: A size or an option is out of range.

    Source: Huang et al. 2024, arXiv:2408.14961; starting values and order as in the authors' classification code.
    """

    sites = ('after_attn',)
    reads = ('attention', 'call')
    place_option = 'place'

    def __init__(
        self,
        dim: int,
        depth: int,
        num_prompts: int = 10,
        dropout: float = 0.1,
        place: str = 'after_attn',
        share: bool = True,
        learn: bool = False,
    ) -> None:
        super().__init__()
        if min(dim, depth, num_prompts) < 1:
            raise ValueError(
                'CVPT needs dim, depth and num_prompts of at least 1, got '
                f'dim={dim}, depth={depth}, num_prompts={num_prompts}.'
            )
        if not 0 <= dropout < 1:
            raise ValueError(f'CVPT needs a dropout in [0, 1), got {dropout}.')
        _check_place(place)
        self.depth = depth
        self.dropout = dropout
        self.share = share
        self.learn = learn
        self.beside = place == 'beside_attn'
        self.prompts = nn.Parameter(torch.empty(num_prompts, dim))
        for name in PROJECTIONS if learn or not share else ():
            setattr(self, name, nn.Linear(dim, dim))
            if not learn:
                _as_buffers(getattr(self, name))
        self.reset_parameters()

    @classmethod
    def places(cls, options: Mapping[str, Any]) -> dict[str, dict]:
        """The site that ``place`` names, with the options of the layer there.

        Raises:
            ValueError: The place is unknown.
        """
        place = options.get('place', 'after_attn')
        _check_place(place)
        return {place: dict(options)}

    def reset_parameters(self) -> None:
        # Xavier's bound for the prompts of all blocks as one tensor (depth, P, C), as torch reads its shape.
        bound = math.sqrt(6 / (len(self.prompts) + self.depth) / self.prompts.shape[1])
        nn.init.uniform_(self.prompts, -bound, bound)
        for layer in self.children():
            layer.reset_parameters()
            if self.share:
                nn.init.zeros_(layer.weight)
                nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, attention: Attention, call: Any = None) -> Tensor:
        # What is added to weights is lost beside those of half precision.
        whole = call is None or any(True for _ in self.children())
        attention = self.weights(attention) if whole else attention.cast(call.cast)
        prompts, tokens = self.prompts.unsqueeze(0), None
        if self.training and self.dropout:
            prompts, tokens = in_training(prompts.expand(x.shape[0], -1, -1), self.dropout, True), x.shape[1]
        backward = torch.is_grad_enabled() and prompts.requires_grad
        costs = operations(x.shape[2], attention.num_heads, prompts.shape[1], tokens, backward)
        # A cosine needs the query itself.
        form = folded if attention.cosine_scale is None and costs[1] < MARGIN * costs[0] else plain
        drops = self.training and attention.out_dropout > 0
        if form is folded and not (self.beside or drops):
            return folded(x, prompts, attention, residual=True)
        y = in_training(form(x, prompts, attention), attention.out_dropout, self.training)
        return y if self.beside else x + y

    def weights(self, attention: Attention) -> Attention:
        """The weights of the cross-attention in a block whose self-attention is ``attention``."""
        changed = {}
        for name, layer in self.named_children():
            for kind in ('weight', 'bias'):
                host, own = getattr(attention, f'{name}_{kind}'), getattr(layer, kind)
                changed[f'{name}_{kind}'] = own if host is None or not self.share else host + own
        return replace(attention, **changed)


def operations(
    dim: int, num_heads: int, prompts: int, tokens: int | None = None, backward: bool = False
) -> tuple[float, float]:
    """Multiplications per token that the plain and the folded form take with frozen weights.

    Args:
        dim: Channels of the tokens.
        num_heads: Heads of the attention.
        prompts: Number of prompts.
        tokens: How many tokens share one set of keys and values; None for so many that the set costs nothing.
        backward: Whether gradients of tokens and prompts are computed too. A product with a frozen weight then
            costs twice, a product of two activations three times. The folded form folds once more, and takes from
            the gradient at its scores what was added to the tokens. Folding counts twice: what it makes is moved, too.
    """
    width, shared = num_heads * prompts, 1 / tokens if tokens else 0
    projection, again = prompts * dim**2 * shared, width**2 * (1 + dim * shared)
    if backward:
        return 4 * dim**2 + 6 * dim * prompts + 4 * projection, 6 * dim * width + again + 16 * projection
    return 2 * dim**2 + 2 * dim * prompts + 2 * projection, 2 * dim * width + 6 * projection


def plain(x: Tensor, prompts: Tensor, attention: Attention) -> Tensor:
    """Multi-head attention of the tokens to the prompts, step by step.

    Shape: ``(B, N, C), (B or 1, P, C) -> (B, N, C)``
    """
    q = _heads(F.linear(x, attention.q_weight, attention.q_bias), attention)
    k = _heads(F.linear(prompts, attention.k_weight, attention.k_bias), attention)
    v = _heads(F.linear(prompts, attention.v_weight, attention.v_bias), attention)
    size, scale = (x.shape[0], -1, -1, -1), None
    if attention.cosine_scale is not None:
        (q, k), scale = cosine(q, k, attention.cosine_scale), 1.0
    y = F.scaled_dot_product_attention(q, k.expand(size), v.expand(size), scale=scale)
    return F.linear(y.transpose(1, 2).flatten(2), attention.out_weight, attention.out_bias)


def cosine(q: Tensor, k: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Queries and keys whose products are the cosines of the given ones, times ``scale``.

    Shape: ``(B, heads, N, C), (B, heads, P, C), (heads, 1, 1) -> (B, heads, N, C), (B, heads, P, C)``
    """
    return (F.normalize(q, dim=-1) * scale).to(q.dtype), F.normalize(k, dim=-1).to(k.dtype)


def folded(x: Tensor, prompts: Tensor, attention: Attention, residual: bool = False) -> Tensor:
    """The same as ``plain``, as a bottleneck of heads x prompts: the projections act on the prompts alone.

    Args:
        x: The tokens.
        prompts: One set for all samples, or one for each.
        attention: The weights.
        residual: Whether ``x`` is added, which then need not be kept for the backward pass.

    Shape: ``(B, N, C), (B or 1, P, C) -> (B, N, C)``
    """
    keys = F.linear(prompts, attention.k_weight, attention.k_bias)
    values = F.linear(prompts, attention.v_weight, attention.v_bias)
    projections = attention.q_weight, attention.q_bias, attention.out_weight, attention.out_bias
    weights = Weights(keys, values, *projections)
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        y, _ = attend(x, weights, attention.num_heads)
        return x + y if residual else y
    return FoldedAttention.apply(x, attention.num_heads, residual, *weights)


def _heads(x: Tensor, attention: Attention) -> Tensor:
    """Shape: ``(B, N, C) -> (B, heads, N, C / heads)``."""
    return x.unflatten(2, (attention.num_heads, -1)).transpose(1, 2)


def _as_buffers(layer: nn.Module) -> None:
    """Keep the values of ``layer`` as buffers: saved, moved and never trained."""
    for name, parameter in list(layer.named_parameters()):
        delattr(layer, name)
        layer.register_buffer(name, parameter.data)


def _check_whole(*weights: Tensor) -> None:
    if any(weight.dim() != 2 for weight in weights):
        raise in_shards('CVPT', "the weights of its block's self-attention")


def _check_place(place: str) -> None:
    if place not in PLACES:
        raise ValueError(f'CVPT knows the places {", ".join(PLACES)}, got {place!r}.')
