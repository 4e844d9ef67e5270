"""SSF: scale and shift the features of a frozen model."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from mmpeft.forms import for_cpu
from mmpeft.methods.affine import affine_gradients, sums
from mmpeft.methods.casting import for_products
from mmpeft.methods.method import Method
from mmpeft.methods.shards import in_shards

# Below this a scale divides away too much of what its gradient is computed from.
SMALL = 0.01
# A GPU cannot be asked for the smallest scale without a wait: scales that are divided by have at least this size there.
FLOOR = 1e-5


class SSF(Method):
    """Scale and shift each channel, ``y = x * scale + shift``, starting near identity.

    The result keeps the dtype of ``x``, so that under autocast the host computes on as it would alone.

    Args:
        dim: Channels C of the features.
        channel_axis: The axis of C: -1 for tokens, 1 for the maps of a Conv2d.
        unchanged: Whether nothing that follows changes the result in place; after a linear layer it is then kept for
            the backward pass where that is exact enough, and what follows often keeps it too.

    Shape: ``(..., C) -> (..., C)``, or ``(B, C, H, W) -> (B, C, H, W)`` with ``channel_axis=1``.

    Raises:
        ValueError: ``dim`` is below 1, or the features have another size on the channel axis.

    Source: Lian et al. 2022, arXiv:2210.08823; initial values as in the authors' code.
    """

    sites = ('patch_embed', 'patch_norm', 'norm1', 'qkv', 'proj', 'depthwise', 'norm2', 'fc1', 'fc2', 'output_norm')
    reads = ('call',)
    takes_maps = True
    folds = True
    no_decay = ('scale', 'shift')

    def __init__(self, dim: int, channel_axis: int = -1, unchanged: bool = False) -> None:
        super().__init__()
        if dim < 1:
            raise ValueError(f'SSF needs a dim of at least 1, got {dim}.')
        self.channel_axis = channel_axis
        self.unchanged = unchanged
        self.scale = nn.Parameter(torch.empty(dim))
        self.shift = nn.Parameter(torch.empty(dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.normal_(self.scale, mean=1, std=0.02)
        nn.init.normal_(self.shift, mean=0, std=0.02)

    def forward(self, x: Tensor, call: Any = None) -> Tensor:
        found, expected = x.shape[self.channel_axis], len(self.scale)
        if found != expected:
            raise ValueError(
                f'SSF of {expected} channels got features of shape {tuple(x.shape)} with {found} channels on axis '
                f'{self.channel_axis}. Set channel_axis to the axis of the channels.'
            )
        shape = [1] * x.dim()
        shape[self.channel_axis] = -1
        return torch.addcmul(self.shift.view(shape), x, self.scale.view(shape)).to(x.dtype)

    def after_linear(self, x: Tensor, weight: Tensor, bias: Tensor | None, call: Any = None) -> Tensor:
        """What this SSF makes of the output of a linear layer, as one product where the layer is frozen.

        Shape: ``(..., I), (C, I), (C) -> (..., C)``
        """
        self._check_whole(weight)
        trains = weight.requires_grad or (bias is not None and bias.requires_grad)
        if trains or torch.compiler.is_compiling() or torch.jit.is_tracing():
            return self(F.linear(x, weight, bias), call)
        x = for_products(x)
        if self._may_keep_result(x):
            return ScaledLinear.apply(x, weight, bias, self.scale, self.shift)
        cast = _as_it_is if call is None else call.cast
        return LinearThenScale.apply(x, weight, bias, self.scale, self.shift, cast)

    def _check_whole(self, weight: Tensor) -> None:
        if not len(self.scale) == len(self.shift) == len(weight):
            raise in_shards('SSF', 'its scale and shift')

    def _may_keep_result(self, x: Tensor) -> bool:
        """Whether the output of the layer, and with it the gradient of the scale, can be told from the result.

        What the shift takes in the result is lost to the rest: of a small scale all, in half precision much. A CPU
        looks at the values.
        """
        if not torch.is_grad_enabled():
            return for_cpu(x)
        half = x.dtype in (torch.float16, torch.bfloat16)
        if not for_cpu(x) or not self.unchanged:
            return self.unchanged and not half
        scale, shift = self.scale.detach(), self.shift.detach()
        if type(scale) is not Tensor:  # one of those for which costs are counted
            return True
        least = max(SMALL, float(shift.abs().amax())) if half else SMALL
        return float(scale.abs().amin()) >= least

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
        if not for_cpu(scale):
            scale = torch.copysign(scale.abs().clamp_(min=FLOOR), scale)
        out = F.linear(x, weight * scale.unsqueeze(1), shift if bias is None else torch.addcmul(shift, bias, scale))
        ctx.save_for_backward(out, weight, scale, shift)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor):
        out, weight, scale, shift = ctx.saved_tensors
        with torch.autocast(grad.device.type, enabled=False):
            grad_x = grad @ _scaled(weight, scale, grad.dtype) if ctx.needs_input_grad[0] else None
            grad_scale, grad_shift = affine_gradients(grad, out, scale, shift)
        return grad_x, None, None, grad_scale, grad_shift


def _as_it_is(tensor: Tensor | None) -> Tensor | None:
    return tensor


class LinearThenScale(torch.autograd.Function):
    """The same, one after the other, for any scale and shift, and whatever becomes of the result.

    Of the input and the output of the layer the narrower one is kept; from the input the output is computed again.
    ``cast`` is ``Call.cast``.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        scale: Tensor,
        shift: Tensor,
        cast: Callable[[Tensor | None], Tensor | None] = _as_it_is,
    ) -> Tensor:
        cast_weight, cast_bias = cast(weight), cast(bias)
        y = F.linear(x, cast_weight, cast_bias)
        ctx.widens = len(weight) > weight.shape[1]
        # The parameter itself takes no memory.
        ctx.save_for_backward(*(x, cast_weight, cast_bias) if ctx.widens else (y, weight, None), scale)
        return torch.addcmul(shift, y, scale, out=torch.empty_like(y))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor):
        kept, weight, bias, scale = ctx.saved_tensors
        dtype = grad.dtype
        with torch.autocast(grad.device.type, enabled=False):
            grad_x = grad @ _scaled(weight, scale, dtype) if ctx.needs_input_grad[0] else None
            if ctx.widens:
                kept = F.linear(kept, weight.to(dtype), None if bias is None else bias.to(dtype))
            grad_scale, grad_shift = sums(grad, kept)
        return grad_x, None, None, grad_scale, grad_shift, None


def _scaled(weight: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """The weight with scaled rows, in one operation whatever the dtypes."""
    return torch.mul(weight, scale.unsqueeze(1), out=weight.new_empty(weight.shape, dtype=dtype))
