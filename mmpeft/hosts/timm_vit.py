"""Blocks of timm's ViT (DINOv2, MAE, CLIP, SigLIP 2) and EVA (EVA-02, DINOv3)."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from mmpeft.hosts.block import NORM
from mmpeft.hosts.call import Call
from mmpeft.hosts.host import Host, layer_tensors
from mmpeft.hosts.vit import ViTBlock
from mmpeft.methods.cvpt import Attention

NORMS = (*NORM, *(f'timm.layers.norm.{name}' for name in ('LayerNorm', 'LayerNormFp32', 'RmsNorm')))
MLPS = tuple(f'timm.layers.mlp.{name}' for name in ('Mlp', 'GluMlp', 'SwiGLU'))


class TimmBlock(ViTBlock):
    """A block of ``timm.models.vision_transformer``."""

    parts = {'norm1': NORMS, 'attn': ('timm.layers.attention.Attention',), 'norm2': NORMS, 'mlp': MLPS}

    @classmethod
    def check_attention(cls, module: nn.Module) -> None:
        for name in ('q_norm', 'k_norm', 'norm', 'gate'):
            part = getattr(module.attn, name, None)
            if not isinstance(part, nn.Identity | None):
                raise ValueError(f'its attention has a {name}, which prompts do not go through')

    def attention(self, y: Tensor, call: Call) -> Tensor:
        return self.drop_path1(self.ls1(self.attn(y, **call.given)))

    def attention_weights(self) -> Attention:
        return weights_of(self.attn)

    def ffn_parts(self, call: Call) -> tuple[Callable, Callable, Callable]:
        return self.mlp, self.ls2, self.drop_path2


class EvaBlock(TimmBlock):
    """A block of ``timm.models.eva``, whose attention rotates the tokens of the grid; prompts it does not rotate."""

    parts = TimmBlock.parts | {'attn': ('timm.models.eva.EvaAttention', 'timm.layers.attention.AttentionRope')}

    def attention(self, y: Tensor, call: Call) -> Tensor:
        return self.drop_path1(_scaled(self.gamma_1)(self.attn(y, **self.given(y, call))))

    def given(self, y: Tensor, call: Call) -> Mapping[str, Any]:
        """What the stock model gave to the block, with a rotation by nothing for each prompt."""
        rope = call.given.get('rope')
        prompts = 0 if rope is None else y.shape[1] - call.extra_tokens - rope.shape[-2]
        if not prompts:
            return call.given
        size = *rope.shape[:-2], prompts, rope.shape[-1] // 2
        still = torch.cat((rope.new_zeros(size), rope.new_ones(size)), -1)  # sine and cosine
        return {**call.given, 'rope': torch.cat((still, rope), -2)}

    def ffn_parts(self, call: Call) -> tuple[Callable, Callable, Callable]:
        return self.mlp, _scaled(self.gamma_2), self.drop_path2


class TimmAttention(Host):
    """Attention whose query, key and value rows are one site, in however many layers they lie.

    Some have their biases elsewhere and pass the layer by. An adapter makes the projection; the stock forward goes on
    from there.
    """

    calls_stock = True

    @classmethod
    def check(cls, module: nn.Module) -> None:
        if getattr(module, 'num_kv_groups', 1) > 1:
            raise ValueError('its keys and values have fewer heads than its queries')

    @staticmethod
    def sizes(module: nn.Module, site: str) -> dict[str, int]:
        rows, columns = layer_tensors(TimmAttention, module, site)[0].shape
        return dict(dim=rows, in_features=columns, out_features=rows)

    def layer_of(self, site: str) -> tuple:
        if self.qkv is None:
            return self, *(tuple(f'{part}_proj.{leaf}' for part in 'qkv') for leaf in ('weight', 'bias'))
        apart = getattr(self, 'q_bias', None) is not None
        return self, 'qkv.weight', ('q_bias', 'k_proj.bias', 'v_bias') if apart else 'qkv.bias'

    def forward(self, x: Tensor, *given: Any, **named: Any) -> Tensor:
        return self.stock.forward(Projected(self) if self.adapters else self, x, *given, **named)


class Projected:
    """An attention as its own forward takes it, with one layer for the projection, which visits the site."""

    q_bias = None

    def __init__(self, attn: TimmAttention) -> None:
        self.attn = attn

    def qkv(self, x: Tensor) -> Tensor:
        return self.attn.at_linear('qkv', x, *layer_tensors(TimmAttention, self.attn, 'qkv'))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.attn, name)


def weights_of(attn: nn.Module) -> Attention:
    """The weights of an attention of timm as they are now."""
    tensors = layer_tensors(TimmAttention, attn, 'qkv')
    return Attention.of_fused(*tensors, attn.proj, attn.num_heads, attn.proj_drop.p)


def _scaled(gamma: nn.Parameter | None) -> Callable[[Tensor], Tensor]:
    """A layer scale."""
    return nn.Identity() if gamma is None else partial(torch.mul, gamma)
