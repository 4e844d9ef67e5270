"""BEiT of mmseg and mmpretrain, and mmseg's MAE: a ViT whose attention knows how places of its one grid lie."""

import math
from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from mmpeft.hosts.block import FFN, NORM
from mmpeft.hosts.call import Call
from mmpeft.hosts.host import Host, Names, layer_tensors
from mmpeft.hosts.leaf import Linear
from mmpeft.hosts.tables import EXTRA, resize_table
from mmpeft.hosts.vit import BLOCK, NO_PROMPTS, ViTBackbone, ViTBlock
from mmpeft.methods.cvpt import Attention

ATTENTION = (
    'mmseg.models.backbones.beit.BEiTAttention',
    'mmseg.models.backbones.mae.MAEAttention',
    'mmpretrain.models.utils.attention.BEiTAttention',
)

TABLE, INDEX = 'relative_position_bias_table', 'relative_position_index'


class RelativeAttention(Host):
    """Attention with a bias for each pair of places, up to rounding; what is kept of pairs is that of one image.

    ``qkv`` is a site of the attention, because the stock module adds the biases of queries and values itself and
    passes the layer by. The stock module itself runs where ``qkv`` trains without an adapter.
    """

    calls_stock = True

    @staticmethod
    def sizes(module: nn.Module, site: str) -> dict[str, int]:
        return Linear.sizes(module.qkv, site)

    def layer_of(self, site: str) -> tuple[nn.Module, Names, Names]:
        # What is added to all keys changes no softmax.
        apart = self, 'qkv.weight', ('q_bias', None, 'v_bias')
        return apart if hasattr(self, 'q_bias') else (self.qkv, 'weight', 'bias')

    def weights(self) -> Attention:
        """The weights of this attention as they are now."""
        return Attention.of_fused(*layer_tensors(self.host, self, 'qkv'), self.proj, self.num_heads, self.proj_drop.p)

    def heads(self, x: Tensor) -> list[Tensor]:
        """Queries, keys and values. Shape: ``(B, N, C) -> (B, heads, N, C / heads)``."""
        qkv = self.at_linear('qkv', x, *layer_tensors(self.host, self, 'qkv'))
        return [part.unflatten(2, (self.num_heads, -1)).transpose(1, 2) for part in qkv.chunk(3, dim=2)]

    def forward(self, x: Tensor, **shared: Tensor) -> Tensor:
        if not self.adapters and self.qkv.weight.requires_grad:
            return super().forward(x, **shared)
        q, k, v = self.heads(x)
        bias = [part for part in shared.values() if part is not None]
        if self.relative_position_bias_table is not None:
            index = self.relative_position_index
            bias.append(self.relative_position_bias_table[index.flatten()].unflatten(0, index.shape).permute(2, 0, 1))
        return self.output(q, k, v, sum(bias) if bias else None, self.scale)

    def output(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float) -> Tensor:
        """What attention returns; the heads of windows that have other biases may stand side by side.

        Shape: ``(B, windows heads, N, C / heads) three times, (windows heads, N, N) -> (B windows, N, C)``
        """
        bias = None if bias is None else bias.to(q.dtype).unsqueeze(0)
        y = F.scaled_dot_product_attention(q, k, v, bias, self.attn_drop.p if self.training else 0.0, scale=scale)
        y = y.unflatten(1, (-1, self.num_heads)).transpose(2, 3).flatten(3).flatten(0, 1)
        return self.proj_drop(self.proj(y))


class BEiTBlock(ViTBlock):
    """A block with two layer scales of its own, which may be given biases of scores that all blocks share."""

    parts = {'ln1': NORM, 'attn': ATTENTION, 'ln2': NORM, 'ffn': FFN}

    def forward(self, x: Tensor, rel_pos_bias: Tensor | None = None) -> Tensor:
        return super().forward(x, **({} if rel_pos_bias is None else dict(rel_pos_bias=rel_pos_bias)))

    def attention(self, y: Tensor, call: Call) -> Tensor:
        return self.drop_path(scaled(self.attn(y, **call.given), self.gamma_1))

    def attention_weights(self) -> Attention:
        return self.attn.weights()

    def ffn_parts(self, call: Call) -> tuple[Callable, Callable, Callable]:
        ffn = self.ffn
        return ffn.layers, lambda y: scaled(ffn.dropout_layer(ffn.gamma2(y)), self.gamma_2), self.drop_path


def scaled(y: Tensor, gamma: Tensor | None) -> Tensor:
    """``y`` times a layer scale, if there is one."""
    return y if gamma is None else gamma * y


class BEiTBackbone(ViTBackbone):
    """BEiT: no prompts among its tokens, because a bias is known for those of the grid and the class token alone."""

    places = {**NO_PROMPTS, 'qkv': rf'{BLOCK}\.attn'}
    bias_options = {rf'{BLOCK}\.attn\.qkv\.bias': 'bias'}

    def extra_tokens(self) -> int:
        return int(self.cls_token is not None)

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs):
        # Both libraries would resize by a function that SciPy 1.14 removed.
        grid = self.patch_shape if hasattr(self, 'patch_shape') else self.patch_resolution
        length = math.prod(2 * side - 1 for side in grid) + EXTRA
        indices = [buffer for name, buffer in self.named_buffers() if name.endswith(INDEX)]
        for name in [name for name in state_dict if name.startswith(prefix) and name.endswith(TABLE)]:
            if indices and len(state_dict[name]) != length:
                state_dict[name] = resize_table(state_dict[name], grid)
                state_dict[name.removesuffix(TABLE) + INDEX] = indices[0]
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def resize_rel_pos_embed(self, checkpoint: dict) -> dict:
        """What mmseg loads of a checkpoint; tables are resized while they are loaded."""
        return dict(checkpoint.get('state_dict', checkpoint))

    def wire(self) -> None:
        super().wire()
        self.adapt_all(ATTENTION, RelativeAttention)


class MAEBackbone(BEiTBackbone):
    """mmseg's MAE: its biases of scores start at zero, its layer scales at one value, and no MAE file has either."""

    fresh = rf'{BLOCK}\.(gamma_[12]|attn\.relative_position_bias_table)'
