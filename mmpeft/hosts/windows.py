"""Attention in windows whose masks are computed once for a size of map."""

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from mmpeft.hosts.host import Host


class WindowAttention(Host):
    """``ShiftWindowMSA``, bit for bit.

    The stock module itself runs where it does not shift, in traced graphs, and in maps of one window, which the
    libraries treat differently.
    """

    def forward(self, query: Tensor, hw_shape: tuple[int, int]) -> Tensor:
        size, shift = self.window_size, self.shift_size
        traced = torch.compiler.is_compiling() or torch.jit.is_tracing() or type(query) is not Tensor
        if traced or not shift or min(hw_shape) <= size:
            return super().forward(query, hw_shape)
        height, width = hw_shape
        x = F.pad(query.unflatten(1, hw_shape), (0, 0, 0, -width % size, 0, -height % size))
        padded = x.shape
        x = torch.roll(x, (-shift, -shift), (1, 2))
        x = x.unflatten(2, (-1, size)).unflatten(1, (-1, size)).transpose(2, 3)
        windows = x.shape
        mask = mask_of(*padded[1:3], size, shift, x.device, torch.get_default_dtype())
        x = self.w_msa(x.reshape(-1, size * size, windows[-1]), mask=mask)
        x = torch.roll(x.view(windows).transpose(2, 3).reshape(padded), (shift, shift), (1, 2))
        return self.drop(x[:, :height, :width].flatten(1, 2))


@lru_cache(maxsize=4)
def mask_of(height: int, width: int, size: int, shift: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """What keeps those tokens of a window apart that only the shift put together, (windows, N, N).

    One size of image needs one for each of Swin's four stages, and no more are kept: they are large.
    """
    region = torch.zeros(height, width, device=device, dtype=dtype)
    cuts = slice(0, -size), slice(-size, -shift), slice(-shift, None)
    for number, (rows, columns) in enumerate((r, c) for r in cuts for c in cuts):
        region[rows, columns] = number
    region = region.unflatten(1, (-1, size)).unflatten(0, (-1, size)).transpose(1, 2).reshape(-1, size * size)
    return (region.unsqueeze(1) != region.unsqueeze(2)).to(dtype) * -100.0
