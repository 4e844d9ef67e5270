"""The parameters of Mona, and the fewer weights that it computes with."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Weights(NamedTuple):
    """What Mona computes with: one norm, one depthwise kernel, one matrix between two projections."""

    norm: Tensor
    norm_bias: Tensor
    gammax: Tensor
    down: Tensor
    down_bias: Tensor
    kernel: Tensor
    kernel_bias: Tensor
    matrix: Tensor
    matrix_bias: Tensor
    up: Tensor
    up_bias: Tensor

    def prepared(self, dtype: torch.dtype, dropout: float) -> 'Weights':
        """Weights of products and convolutions in ``dtype``, and ``up`` divided by the share that dropout keeps."""
        cast = Weights(*self[:3], *(weight.to(dtype) for weight in self[3:]))
        return cast._replace(up=cast.up / (1 - dropout)) if dropout else cast


class Parameters(NamedTuple):
    """What trains, or the gradients of that."""

    norm: Tensor
    norm_bias: Tensor
    gamma: Tensor
    gammax: Tensor
    down: Tensor
    down_bias: Tensor
    conv3: Tensor
    conv3_bias: Tensor
    conv5: Tensor
    conv5_bias: Tensor
    conv7: Tensor
    conv7_bias: Tensor
    pointwise: Tensor
    pointwise_bias: Tensor
    up: Tensor
    up_bias: Tensor

    def composed(self) -> Weights:
        """Gamma in the affine of the norm, the mean of three kernels and the skip in one, and the second skip too."""
        kernel = (F.pad(self.conv3, [2] * 4) + F.pad(self.conv5, [1] * 4) + self.conv7) / 3
        skip = torch.eye(len(self.pointwise), dtype=self.pointwise.dtype, device=self.pointwise.device)
        return Weights(
            norm=self.norm * self.gamma,
            norm_bias=self.norm_bias * self.gamma,
            gammax=self.gammax,
            down=self.down,
            down_bias=self.down_bias,
            kernel=kernel + F.pad(kernel.new_ones(1, 1, 1, 1), [3] * 4),
            kernel_bias=(self.conv3_bias + self.conv5_bias + self.conv7_bias) / 3,
            matrix=self.pointwise.flatten(1) + skip,
            matrix_bias=self.pointwise_bias,
            up=self.up,
            up_bias=self.up_bias,
        )

    def gradients(self, grads: Weights) -> 'Parameters':
        """Gradients of the parameters from those of the composed weights."""
        kernel, bias = grads.kernel.to(self.conv7.dtype) / 3, grads.kernel_bias.to(self.conv7.dtype) / 3
        return Parameters(
            norm=grads.norm * self.gamma,
            norm_bias=grads.norm_bias * self.gamma,
            gamma=torch.addcmul(grads.norm * self.norm, grads.norm_bias, self.norm_bias),
            gammax=grads.gammax,
            down=grads.down,
            down_bias=grads.down_bias,
            conv3=kernel[..., 2:5, 2:5],
            conv3_bias=bias,
            conv5=kernel[..., 1:6, 1:6],
            conv5_bias=bias,
            conv7=kernel,
            conv7_bias=bias,
            pointwise=grads.matrix.view_as(self.pointwise),
            pointwise_bias=grads.matrix_bias,
            up=grads.up,
            up_bias=grads.up_bias,
        )
