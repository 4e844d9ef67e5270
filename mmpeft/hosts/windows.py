"""Attention in the windows of a frozen Swin: layers see the tokens of the map alone, and little is kept."""

from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mmpeft.forms import for_cpu
from mmpeft.hosts.call import current_call
from mmpeft.hosts.host import Host
from mmpeft.operators import softmax_backward_


class Windows(NamedTuple):
    """Where the tokens of a map come to lie when it is padded, shifted and cut into windows.

    Attributes:
        area: How many tokens N a window has.
        tokens: The place of each token of the map, (H W).
        padding: The places that are left, (windows N - H W).
        mask: What keeps those tokens of a window apart that only the shift put together, (windows, N, N), or 0.
    """

    area: int
    tokens: Tensor
    padding: Tensor
    mask: Tensor | float

    def split(self, x: Tensor, width: int, row: Tensor | None = None) -> Tensor:
        """Heads of ``width`` channels in windows, with ``row`` or zeros for padding.

        Shape: ``(B, H W, heads width), (heads width) -> (heads B windows, N, width)``
        """
        placed = x.new_empty(len(x), len(self.tokens) + len(self.padding), x.shape[2])
        if len(self.padding):
            placed[:, self.padding] = placed.new_zeros(()) if row is None else row
        placed.index_copy_(1, self.tokens, x)
        return placed.view(-1, self.area, x.shape[2] // width, width).permute(2, 0, 1, 3).flatten(0, 1)

    def join(self, x: Tensor, batch: int, heads: int) -> Tensor:
        """Heads side by side again.

        Shape: ``(heads B windows, N, width) -> (B, windows N, heads width)``
        """
        return x.unflatten(0, (heads, -1)).permute(1, 2, 0, 3).reshape(batch, -1, heads * x.shape[2])


class WindowAttention(Host):
    """``ShiftWindowMSA``, up to rounding.

    Padding is zero, so one row stands for all that ``qkv`` makes of it. The stock module itself runs where ``qkv``
    trains or attention is dropped, in traced graphs, and in maps of one window, which the libraries treat differently.
    """

    state = ('kept_bias',)

    def forward(self, query: Tensor, hw_shape: tuple[int, int]) -> Tensor:
        msa, size = self.w_msa, self.window_size
        traced = torch.compiler.is_compiling() or torch.jit.is_tracing()
        drops = msa.training and msa.attn_drop.p > 0
        if traced or drops or msa.qkv.weight.requires_grad or min(hw_shape) <= size:
            return super().forward(query, hw_shape)
        table = msa.relative_position_bias_table
        # Tensors without values, for which costs are counted, are not kept for other forwards.
        has_values = type(query) is Tensor
        cut = windows_of if has_values else windows_of.__wrapped__
        windows = cut(*hw_shape, size, self.shift_size, query.device, table.dtype)
        bias = self.position_bias(keep=has_values and for_cpu(table) and not table.requires_grad)
        qkv = msa.qkv(query)
        row = self.padding_row(qkv) if len(windows.padding) else None
        out = AttentionFunction.apply(qkv, row, bias, windows, msa.scale)
        return self.drop(msa.proj_drop(msa.proj(out)))

    def padding_row(self, qkv: Tensor) -> Tensor | None:
        """What ``qkv`` makes of padding, whose tokens are zero: its bias, unless an adapter changes that; None is zero.

        Shape: ``(3 C)``
        """
        layer = self.w_msa.qkv
        if any(adapter.shifts for adapter in layer.adapters.values()):
            return layer(qkv.new_zeros(1, 1, layer.in_features)).flatten()
        return None if layer.bias is None else current_call().cast(layer.bias).to(qkv.dtype)

    def position_bias(self, keep: bool) -> Tensor:
        """What the table holds for the pairs of a window; kept until the table has other values.

        The values are compared, because writes through ``.data``, by which mmengine's EMA swaps weights, change
        neither address nor version. That is why only a CPU keeps it: other devices would have to be waited for.

        Shape: ``(heads, N, N)``
        """
        table, index = self.w_msa.relative_position_bias_table, self.w_msa.relative_position_index
        values, bias = self.__dict__.get('kept_bias', (None, None)) if keep else (None, None)
        if values is None or values.dtype != table.dtype or not torch.equal(values, table):
            bias = table[index.flatten()].unflatten(0, index.shape).permute(2, 0, 1)
            if keep:
                self.kept_bias = table.detach().clone(), bias
        return bias


class AttentionFunction(torch.autograd.Function):
    """Attention in windows for the ``qkv`` of tokens and of one padding token; it keeps them and its weights.

    Shape: ``(B, H W, 3 C), (3 C), (heads, N, N) -> (B, H W, C)``
    """

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, row: Tensor | None, bias: Tensor, windows: Windows, scale: float) -> Tensor:
        heads, width = len(bias), qkv.shape[2] // (3 * len(bias))
        ctx.windows, ctx.scale, ctx.heads, ctx.width = windows, scale, heads, width
        with torch.autocast(qkv.device.type, enabled=False):
            q, k, v = windows.split(qkv, width, row).chunk(3)
            scores = (q.mul_(scale) @ k.transpose(1, 2)).unflatten(0, (heads, len(qkv), -1))
            scores = scores.to(bias.dtype).add_((bias.unsqueeze(1) + windows.mask).unsqueeze(1))
            weights = scores.softmax(-1).to(qkv.dtype).flatten(0, 2)
            out = windows.join(weights @ v, len(qkv), heads).index_select(1, windows.tokens)
        ctx.save_for_backward(qkv, row, weights)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor):
        qkv, row, weights = ctx.saved_tensors
        windows, scale, heads, width = ctx.windows, ctx.scale, ctx.heads, ctx.width
        with torch.autocast(qkv.device.type, enabled=False):
            q, k, v = windows.split(qkv, width, row).chunk(3)
            g = windows.split(grad, width)
            grads = q.new_empty(3, *q.shape)
            torch.bmm(weights.transpose(1, 2), g, out=grads[2])
            g = g @ v.transpose(1, 2)
            softmax_backward_(g, weights)
            torch.bmm(g, k, out=grads[0]).mul_(scale)
            torch.bmm(g.transpose(1, 2), q.mul_(scale), out=grads[1])
            grads = windows.join(grads.flatten(0, 1), len(qkv), 3 * heads)
            grad_row = grad_bias = None
            if ctx.needs_input_grad[1]:
                grad_row = grads[:, windows.padding].sum((0, 1))
            if ctx.needs_input_grad[2]:
                grad_bias = g.unflatten(0, (heads, -1)).sum(1)
            return grads.index_select(1, windows.tokens), grad_row, grad_bias, None, None


@lru_cache(maxsize=8)
def windows_of(height: int, width: int, size: int, shift: int, device: torch.device, dtype: torch.dtype) -> Windows:
    """The windows of a map; those of Swin's four stages, shifted and not, are kept for one size of image."""
    rows, columns = height + -height % size, width + -width % size

    def places(r: Tensor, c: Tensor) -> Tensor:
        r, c = ((r - shift) % rows).unsqueeze(1), (c - shift) % columns
        return ((r // size * (columns // size) + c // size) * size**2 + r % size * size + c % size).flatten()

    r, c = torch.arange(rows, device=device), torch.arange(columns, device=device)
    padding = torch.cat((places(r[height:], c), places(r[:height], c[width:])))
    mask = 0.0
    if shift:
        region = torch.empty(rows * columns, device=device, dtype=torch.long)
        region[places(r, c)] = (2 * (r < shift).unsqueeze(1) + (c < shift)).flatten()
        region = region.view(-1, size**2)
        mask = (region.unsqueeze(1) != region.unsqueeze(2)).to(dtype) * -100.0
    return Windows(size**2, places(r[:height], c[:width]), padding, mask)
