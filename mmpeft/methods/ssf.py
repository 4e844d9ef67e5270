"""SSF: scale and shift the features of a frozen model."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from mmpeft.methods.affine import affine_gradients
from mmpeft.methods.method import Method
from mmpeft.methods.shards import in_shards

# Below this a scale divides away too much of what its gradient is computed from.
SMALL = 0.01


class SSF(Method):
    """Scale and shift each channel, ``y = x * scale + shift``, starting near identity.

    The result keeps the dtype of ``x``, so that under autocast the host computes on as it would alone.

    Args:
        dim: Channels C of the features.
        channel_axis: The axis of C: -1 for tokens, 1 for the maps of a Conv2d.

    Shape: ``(..., C) -> (..., C)``, or ``(B, C, H, W) -> (B, C, H, W)`` with ``channel_axis=1``.

    Raises:
        ValueError: ``dim`` is below 1, or the features have another size on the channel axis.

    Source: Lian et al. 2022, arXiv:2210.08823; initial values as in the authors' code.
    """

    sites = ('patch_embed', 'patch_norm', 'norm1', 'qkv', 'proj', 'depthwise', 'norm2', 'fc1', 'fc2', 'output_norm')
    takes_maps = True
    folds = True
    no_decay = ('scale', 'shift')

    def __init__(self, dim: int, channel_axis: int = -1) -> None:
        super().__init__()
        if dim < 1:
            raise ValueError(f'SSF needs a dim of at least 1, got {dim}.')
        self.channel_axis = channel_axis
        self.scale = nn.Parameter(torch.empty(dim))
        self.shift = nn.Parameter(torch.empty(dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.normal_(self.scale, mean=1, std=0.02)
        nn.init.normal_(self.shift, mean=0, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        found, expected = x.shape[self.channel_axis], len(self.scale)
        if found != expected:
            raise ValueError(
                f'SSF of {expected} channels got features of shape {tuple(x.shape)} with {found} channels on axis '
                f'{self.channel_axis}. Set channel_axis to the axis of the channels.'
            )
        shape = [1] * x.dim()
        shape[self.channel_axis] = -1
        return torch.addcmul(self.shift.view(shape), x, self.scale.view(shape)).to(x.dtype)

    def after_linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """What this SSF makes of the output of a linear layer, as one product where the layer is frozen.

        Shape: ``(..., I), (C, I), (C) -> (..., C)``
        """
        self._check_whole(weight)
        trains = weight.requires_grad or (bias is not None and bias.requires_grad)
        if trains or torch.compiler.is_compiling() or (torch.is_grad_enabled() and self._has_small_scales()):
            return self(F.linear(x, weight, bias))
        return ScaledLinear.apply(x, weight, bias, self.scale, self.shift)

    def _check_whole(self, weight: Tensor) -> None:
        if not len(self.scale) == len(self.shift) == len(weight):
            raise in_shards('SSF', 'its scale and shift')

    def _has_small_scales(self) -> bool:
        scale = self.scale.detach()
        has_values = type(scale) is Tensor  # not one of those for which costs are counted
        return has_values and bool(scale.abs().amin() < SMALL)

    def fold(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
        """Weight and bias of a layer that computes what the given one and this SSF after it compute.

        Output channels are the first axis of the weight: of a linear layer, a convolution, a norm.

        Args:
            weight: Weight of the layer before this SSF.
            bias: Its bias; a layer without one gets ``shift``.

        Shape: ``(C, ...), (C) -> (C, ...), (C)``
        """
        self._check_whole(weight)
        scale = self.scale.view(-1, *[1] * (weight.dim() - 1))
        folded_bias = self.shift.clone() if bias is None else torch.addcmul(self.shift, bias, self.scale)
        return (weight * scale).to(weight.dtype), folded_bias.to(weight.dtype)


class ScaledLinear(torch.autograd.Function):
    """``linear(x) * scale + shift`` with scale and shift in the weights, which get no gradient.

    The gradient of the scale is computed from the result, which the next operation often keeps too, and not from the
    output of the layer, which then is never there.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, scale: Tensor, shift: Tensor) -> Tensor:
        out = F.linear(x, weight * scale.unsqueeze(1), shift if bias is None else torch.addcmul(shift, bias, scale))
        ctx.save_for_backward(out, weight, scale, shift)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor):
        out, weight, scale, shift = ctx.saved_tensors
        with torch.autocast(grad.device.type, enabled=False):
            grad_x = grad @ (weight * scale.unsqueeze(1)).to(grad.dtype) if ctx.needs_input_grad[0] else None
            grad_scale, grad_shift = affine_gradients(grad, out, scale, shift)
        return grad_x, None, None, grad_scale, grad_shift
