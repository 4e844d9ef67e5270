"""SSF: scale and shift the features of a frozen model."""

import torch
from torch import Tensor, nn


class SSF(nn.Module):
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
    needs_grid = False
    needs_attention = False
    beside = False
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

    def fold(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
        """Weight and bias of a layer that computes what the given one and this SSF after it compute.

        Output channels are the first axis of the weight: of a linear layer, a convolution, a norm.

        Args:
            weight: Weight of the layer before this SSF.
            bias: Its bias; a layer without one gets ``shift``.

        Shape: ``(C, ...), (C) -> (C, ...), (C)``
        """
        scale = self.scale.view(-1, *[1] * (weight.dim() - 1))
        folded_bias = self.shift.clone() if bias is None else torch.addcmul(self.shift, bias, self.scale)
        return (weight * scale).to(weight.dtype), folded_bias.to(weight.dtype)
