"""Mona: multi-cognitive visual adapter."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmpeft.compiling import compiled, numbers_in
from mmpeft.methods.depthwise import convolution
from mmpeft.methods.depthwise_operator import depthwise
from mmpeft.methods.method import Method
from mmpeft.methods.mona_function import MonaFunction
from mmpeft.methods.mona_weights import Parameters, Weights, compose

INITS = ('trunc_normal', 'torch')


class Mona(Method):
    """Mix tokens over three depthwise kernels inside a bottleneck and add the result to the stream.

    ``z = gamma * norm(x) + gammax * x``; ``y = down(z)`` on the (H, W) grid;
    ``y = (conv3(y) + conv5(y) + conv7(y)) / 3 + y``; ``y = pointwise(y) + y``;
    ``out = x + up(dropout(gelu(y)))``.

    The three depthwise kernels, their mean and the skip are one 7 x 7 kernel, the 1 x 1 kernel and its skip are
    one matrix, and gamma folds into the affine of the norm. They are composed in every forward, for all layers of a
    backbone together, so the result and the gradients of the parts are those of the formula above. Training runs it as
    one operation that keeps less for the backward pass than its steps would; it has no second derivatives.

    Args:
        dim: Channels C of the tokens.
        bottleneck: Width of the bottleneck.
        dropout: Probability of dropping a bottleneck activation in training.
        init: ``'trunc_normal'`` draws both projections from N(0, 0.02) with zero bias, as in the authors' detection
            and segmentation code; ``'torch'`` keeps the defaults of ``nn.Linear``, as in their rotated detection
            code. Neither starts at the identity: ``gamma`` is 1e-6 and ``gammax`` is 1, but ``up`` is not zero.
        lean: Keep still less for the backward pass, and compute more of it again. The result is the same.

    Shape: ``(B, N, C), (H, W) -> (B, N, C)`` with ``N = H * W`` in row-major order.

    Raises:
        ValueError: A size or an option is out of range, or N is not H * W.

    Source: Yin et al. 2024, arXiv:2408.08345; values and order as in the authors' code.
    """

    sites = ('after_attn', 'after_ffn')
    reads = ('hw_shape', 'together')
    no_decay = ('norm',)
    execution = ('lean',)  # how it computes, not what: no part of what a file of trained weights is for

    def __init__(
        self,
        dim: int,
        bottleneck: int = 64,
        dropout: float = 0.1,
        init: str = 'trunc_normal',
        lean: bool = False,
    ) -> None:
        super().__init__()
        if dim < 1 or bottleneck < 1:
            raise ValueError(f'Mona needs dim and bottleneck of at least 1, got dim={dim}, bottleneck={bottleneck}.')
        if not 0 <= dropout < 1:
            raise ValueError(f'Mona needs a dropout in [0, 1), got {dropout}.')
        if init not in INITS:
            raise ValueError(f'Mona knows the initialisations {", ".join(INITS)}, got {init!r}.')
        self.dropout = dropout
        self.init = init
        self.lean = lean
        self.norm = nn.LayerNorm(dim)
        self.gamma = nn.Parameter(torch.empty(dim))
        self.gammax = nn.Parameter(torch.empty(dim))
        self.down = nn.Linear(dim, bottleneck)
        self.conv3 = nn.Conv2d(bottleneck, bottleneck, 3, padding=1, groups=bottleneck)
        self.conv5 = nn.Conv2d(bottleneck, bottleneck, 5, padding=2, groups=bottleneck)
        self.conv7 = nn.Conv2d(bottleneck, bottleneck, 7, padding=3, groups=bottleneck)
        self.pointwise = nn.Conv2d(bottleneck, bottleneck, 1)
        self.up = nn.Linear(bottleneck, dim)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        for layer in self.children():
            layer.reset_parameters()
        nn.init.constant_(self.gamma, 1e-6)
        nn.init.ones_(self.gammax)
        if self.init == 'trunc_normal':
            for layer in (self.down, self.up):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)

    @classmethod
    def together(cls, adapters: Sequence['Mona']) -> list[Weights]:
        return compose([adapter.parts() for adapter in adapters], adapters[0].product_dtype())

    def product_dtype(self) -> torch.dtype:
        """The dtype of products and convolutions as things stand."""
        device = self.gamma.device.type
        return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else self.gamma.dtype

    def forward(self, x: Tensor, hw_shape: tuple[int, int], weights: Weights | None = None) -> Tensor:
        self._check_grid(x, hw_shape)
        if torch.jit.is_tracing() and torch.onnx.is_in_onnx_export():
            raise RuntimeError(
                "PyTorch's old ONNX exporter cannot take Mona, because it knows no computed kernels. Use the new one: "
                'torch.onnx.export(..., dynamo=True).'
            )
        if torch.compiler.is_compiling() or torch.jit.is_tracing():
            return self.steps(x, self.parts().composed(), lambda y, *weights: convolution(y, hw_shape, *weights))
        weights = self.together([self])[0] if weights is None else weights
        dropout = self.dropout if self.training else 0.0
        return MonaFunction.apply(x, hw_shape, self.norm.eps, dropout, self.lean, *weights)

    def compiled(self, x: Tensor, hw_shape: tuple[int, int], weights: Weights | None = None) -> Tensor | None:
        self._check_grid(x, hw_shape)
        weights = self.together([self])[0] if weights is None else weights
        return compiled(_of_rows, self, x, weights, numbers=hw_shape)

    def _check_grid(self, x: Tensor, hw_shape: tuple[int, int]) -> None:
        height, width = hw_shape
        if x.shape[1] != height * width:
            raise ValueError(f'Mona got {x.shape[1]} tokens for a grid of {height} x {width} = {height * width}.')

    def parts(self) -> Parameters:
        """The parameters, part by part."""
        layers = self.down, self.conv3, self.conv5, self.conv7, self.pointwise, self.up
        rest = (tensor for layer in layers for tensor in (layer.weight, layer.bias))
        return Parameters(self.norm.weight, self.norm.bias, self.gamma, self.gammax, *rest)

    def steps(self, x: Tensor, w: Weights, convolve: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Tensor:
        """The layer step by step, for compilers and exporters to make their own of."""
        z = F.layer_norm(x, self.norm.normalized_shape, w.norm, w.norm_bias, self.norm.eps)
        y = F.linear(torch.addcmul(z, x, w.gammax), w.down, w.down_bias)
        y = convolve(y, w.kernel, w.kernel_bias)
        y = F.gelu(F.linear(y, w.matrix, w.matrix_bias))
        return x + F.linear(F.dropout(y, self.dropout, self.training), w.up, w.up_bias)


def _of_rows(layer: Mona, x: Tensor, weights: Weights, grid: Tensor) -> Tensor:
    """The layer for the tokens of all images, one after the other."""
    height, width = numbers_in(grid)
    return layer.steps(x, weights, lambda y, *kernel: depthwise(y, height, width, *kernel))
