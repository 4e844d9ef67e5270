"""Single layers: what a linear, convolution or norm layer computes goes on through its adapter."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from mmpeft.forms import for_cpu
from mmpeft.hosts.call import Call, current_call
from mmpeft.hosts.host import Host
from mmpeft.operators import layer_norm, layer_norm_backward


class Leaf(Host):
    """A layer with one site, its output; which of the backbone's leaf sites that is, its place tells."""

    calls_stock = True

    def layer_of(self, site: str) -> tuple[nn.Module, str, str]:
        return self, 'weight', 'bias'

    def forward(self, x: Tensor, **options) -> Tensor:
        out = super().forward(x, **options)
        for site in self.adapters:
            out = self.at(site, out, x, current_call())
        return out


class Linear(Leaf):
    """``nn.Linear``."""

    def forward(self, x: Tensor) -> Tensor:
        return self.at_linear(next(iter(self.adapters), ''), x, self.weight, self.bias)

    @staticmethod
    def sizes(module: nn.Linear, site: str) -> dict[str, int]:
        return dict(dim=module.out_features, in_features=module.in_features, out_features=module.out_features)


class LayerNorm(Leaf):
    """``nn.LayerNorm`` over the last axis; what can fold into its affine does so in every forward."""

    def forward(self, x: Tensor, **options) -> Tensor:
        weight, bias = self.weight, self.bias
        for adapter in self.adapters.values():
            if options or weight is None or not adapter.folds:
                return super().forward(x, **options)
            weight, bias = adapter.fold(weight, bias)
        lone = weight is not None and bias is not None and bias.requires_grad and not weight.requires_grad
        if not lone or torch.compiler.is_compiling() or for_cpu(x):
            affine = self.normalized_shape, weight, bias, self.eps
            return F.layer_norm(x, *affine) if self.adapters else super().forward(x, **options)
        # Autocast computes norms in fp32.
        half = x.dtype in (torch.float16, torch.bfloat16)
        x = x.float() if half and torch.is_autocast_enabled(x.device.type) else x
        return NormOfFrozenWeight.apply(x, weight, bias, self.eps)

    @staticmethod
    def sizes(module: nn.LayerNorm, site: str) -> dict[str, int]:
        return dict(dim=module.normalized_shape[-1])


class NormOfFrozenWeight(torch.autograd.Function):
    """Layer norm over the last axis, of whose parameters the bias alone trains.

    CUDA's kernel for the gradients lays out its memory by that of the weight and writes beside it where there is none
    and the rows are many. So it makes both.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            out, mean, rstd = layer_norm(x, weight, bias, eps)
        ctx.save_for_backward(x, mean, rstd, weight, bias)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor):
        grad_x, _, grad_bias = layer_norm_backward(grad, *ctx.saved_tensors, needs_x=ctx.needs_input_grad[0])
        return grad_x, None, grad_bias, None


class Conv2d(Leaf):
    """``nn.Conv2d``: the channels of its output are axis 1.

    An adapter beside it gives a change of its kernel, which goes over the map with the same stride and padding.
    """

    @staticmethod
    def sizes(module: nn.Conv2d, site: str) -> dict[str, int]:
        window, channels = module.weight[0].numel(), module.out_channels
        return dict(dim=channels, channel_axis=1, in_features=window, out_features=channels)

    def run(self, adapter: nn.Module, x: Tensor, call: Call | None) -> Tensor:
        if not adapter.beside:
            return super().run(adapter, x, call)
        padding = self.padding
        if self.padding_mode != 'zeros':
            x, padding = F.pad(x, self._around(), mode=self.padding_mode), 0
        kernel = adapter.delta().view_as(self.weight)
        return F.conv2d(x, kernel, None, self.stride, padding, self.dilation, self.groups)

    def _around(self) -> list[int]:
        """How many pixels the padding adds: left and right, above and below."""
        if self.padding == 'valid':
            return [0] * 4
        if self.padding == 'same':
            reach = [dilation * (size - 1) for dilation, size in zip(self.dilation, self.kernel_size, strict=True)]
            sides = [(total // 2, total - total // 2) for total in reach]
        else:
            sides = [(pixels, pixels) for pixels in self.padding]
        return [pixels for side in reversed(sides) for pixels in side]
