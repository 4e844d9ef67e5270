"""Plain ViT of mmseg and mmpretrain (ViT, DeiT, DINOv2): tokens (B, N, C), extra ones in front, one grid throughout."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmpeft.hosts.backbone import Backbone
from mmpeft.hosts.block import FFN, NORM, PreNormBlock
from mmpeft.hosts.call import Call, current_call
from mmpeft.hosts.host import Host, adapt_as
from mmpeft.hosts.patches import resample_kernel
from mmpeft.methods.cvpt import Attention
from mmpeft.sites import BRANCH_SITES, STREAM_SITES

BLOCK = r'layers\.\d+'
TORCH_ATTENTION = ('torch.nn.modules.activation.MultiheadAttention',)
SWIGLU = tuple(f'mmpretrain.models.utils.swiglu_ffn.{name}' for name in ('SwiGLUFFN', 'SwiGLUFFNFused'))
# The sites of a ViT whose blocks take no tokens beside those of the image.
NO_PROMPTS = {
    **dict.fromkeys((*STREAM_SITES, *BRANCH_SITES), BLOCK),
    'patch_embed': r'patch_embed\.projection',
    'patch_norm': r'patch_embed\.norm',
    'norm1': rf'{BLOCK}\.ln1',
    'qkv': rf'{BLOCK}\.attn\.qkv',
    'proj': rf'{BLOCK}\.attn\.proj',
    'norm2': rf'{BLOCK}\.ln2',
    'fc1': rf'{BLOCK}\.ffn\.(layers\.0\.0|w12)',
    'fc2': rf'{BLOCK}\.ffn\.(layers\.1|w3)',
    'output_norm': r'ln[12]',
}


class GridSource(Host):
    """A patch embedding that tells the blocks the grid that it returns."""

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        call = current_call()
        out, call.hw_shape = super().forward(x)
        return out, call.hw_shape


class ViTBlock(PreNormBlock):
    """A block that takes the grid from the call, and lets prompts in and out, outside its own checkpoint."""

    def forward(self, x: Tensor, **given: Any) -> Tensor:
        whole = current_call()
        call = whole.with_given(**given) if given else whole
        own = self.adapters['input'] if 'input' in self.adapters else None
        if own is not None or any('hw_shape' in adapter.reads for adapter in self.adapters.values()):
            call.check_tokens(x)
        prompts = call.prompts
        if own is not None:
            prompts = (*prompts, own(x))
        if not prompts:
            return self.checkpointed(x, call)
        extra = call.extra_tokens
        sizes = [extra, *(tokens.shape[1] for tokens in prompts), x.shape[1] - extra]
        y = self.checkpointed(torch.cat((x[:, :extra], *prompts, x[:, extra:]), dim=1), call)
        front, *prompts, patches = y.split(sizes, dim=1)
        whole.prompts = tuple(prompts[:-1] if own is not None and own.deep else prompts)
        return torch.cat((front, patches), dim=1)

    def run(self, adapter: nn.Module, x: Tensor, call: Call) -> Tensor:
        """Adapters that read the grid see the patch tokens; class and register tokens and prompts pass them by."""
        front = x.shape[1] - math.prod(call.hw_shape) if 'hw_shape' in adapter.reads else 0
        if not front:
            return super().run(adapter, x, call)
        others, patches = x.split((front, x.shape[1] - front), dim=1)
        return torch.cat((others, super().run(adapter, patches, call)), dim=1)


class MMSegBlock(ViTBlock):
    """mmseg's block, whose attention would add the identity itself."""

    parts = {
        'ln1': NORM,
        'attn': ('mmcv.cnn.bricks.transformer.MultiheadAttention',),
        'attn.attn': TORCH_ATTENTION,
        'ln2': NORM,
        'ffn': FFN,
    }

    def attention(self, y: Tensor, call: Call) -> Tensor:
        attn = self.attn
        if attn.attn.in_proj_weight.requires_grad or not attn.batch_first:
            return attn(y, identity=0)
        out, _ = attn.attn(*[y.transpose(0, 1)] * 3)
        return attn.dropout_layer(attn.proj_drop(out.transpose(0, 1)))

    def attention_weights(self) -> Attention:
        attn = self.attn.attn
        weights = attn.in_proj_weight, attn.in_proj_bias, attn.out_proj
        return Attention.of_fused(*weights, attn.num_heads, self.attn.proj_drop.p)


class MMPretrainBlock(ViTBlock):
    """mmpretrain's block."""

    parts = {
        'ln1': NORM,
        'attn': ('mmpretrain.models.utils.attention.MultiheadAttention',),
        'ln2': NORM,
        'ffn': (*FFN, *SWIGLU),
    }

    def attention(self, y: Tensor, call: Call) -> Tensor:
        return self.attn(y)

    def attention_weights(self) -> Attention:
        attn = self.attn
        return Attention.of_fused(attn.qkv.weight, attn.qkv.bias, attn.proj, attn.num_heads, attn.proj_drop.p)


class SelfAttention(Host):
    """``nn.MultiheadAttention`` as mmcv calls it, sequence first, with its two inner projections as sites.

    No hook reaches between the projections of the stock module, so this computes the same with
    ``scaled_dot_product_attention``, and without adapters, too, where nothing of it trains: the stock module keeps
    weights for each head and pair of tokens.

    Attributes:
        reduced: Whether keys and values may be of a smaller map, behind a spatial reduction. Elsewhere they are the
            query, which the tensors do not tell: what calls this transposes each.
    """

    state = ('reduced',)
    calls_stock = True
    reduced = False

    @staticmethod
    def sizes(module: nn.MultiheadAttention, site: str) -> dict[str, int]:
        dim = module.embed_dim
        out = 3 * dim if site == 'qkv' else dim
        return dict(dim=out, in_features=dim, out_features=out)

    def layer_of(self, site: str) -> tuple[nn.Module, str, str]:
        return (self, 'in_proj_weight', 'in_proj_bias') if site == 'qkv' else (self.out_proj, 'weight', 'bias')

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, key_padding_mask=None, need_weights=True, attn_mask=None
    ):
        if not self.adapters and self.in_proj_weight.requires_grad:
            return super().forward(query, key, value, key_padding_mask, need_weights, attn_mask)
        if key_padding_mask is not None or attn_mask is not None:
            raise ValueError('Adapters inside nn.MultiheadAttention take no masks.')
        x = query.transpose(0, 1)  # as the block around has it in memory
        projection = self.in_proj_weight, self.in_proj_bias
        if self.reduced:
            parts = self.at_projections(x, key.transpose(0, 1), *projection)
        else:
            parts = self.at_linear('qkv', x, *projection).chunk(3, dim=2)
        q, k, v = (part.unflatten(2, (self.num_heads, -1)).transpose(1, 2) for part in parts)
        y = F.scaled_dot_product_attention(q, k, v, dropout_p=self.dropout if self.training else 0.0)
        y = y.transpose(1, 2).flatten(2)
        return self.at_linear('proj', y, self.out_proj.weight, self.out_proj.bias).transpose(0, 1), None


class ViTBackbone(Backbone):
    """ViT: blocks learn the grid from the patch embedding, whose kernel may be loaded from one of another size."""

    block = BLOCK
    bias_options = {
        r'patch_embed\.projection\.bias': 'patch_bias',
        rf'{BLOCK}\.attn\.(qkv\.bias|attn\.in_proj_bias|attn\.out_proj\.bias)': 'qkv_bias',
    }
    places = {'input': BLOCK, **NO_PROMPTS}

    @classmethod
    def shared_sizes(cls, module: nn.Module) -> dict:
        return dict(super().shared_sizes(module), patch_size=module.patch_embed.projection.kernel_size)

    def extra_tokens(self) -> int:
        return self.num_extra_tokens

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs):
        name, size = f'{prefix}patch_embed.projection.weight', self.patch_embed.projection.kernel_size
        if name in state_dict and state_dict[name].shape[2:] != size:
            state_dict[name] = resample_kernel(state_dict[name], size)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def wire(self) -> None:
        adapt_as(self.patch_embed, GridSource)


class MMSegViTBackbone(ViTBackbone):
    """mmseg's ViT, whose attention is an ``nn.MultiheadAttention``."""

    places = {**ViTBackbone.places, 'qkv': rf'{BLOCK}\.attn\.attn', 'proj': rf'{BLOCK}\.attn\.attn'}

    def extra_tokens(self) -> int:
        return int(self.with_cls_token)

    def wire(self) -> None:
        super().wire()
        self.adapt_all(TORCH_ATTENTION, SelfAttention)
