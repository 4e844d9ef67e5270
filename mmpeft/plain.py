"""The methods as published, step by step: what the layers of ``mmpeft.methods`` must equal, and what they must beat."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from mmpeft.hosts import adapters_of
from mmpeft.hosts.beit import RelativeAttention
from mmpeft.hosts.host import Host, subclass
from mmpeft.hosts.swin_v2 import CosineAttention
from mmpeft.hosts.vit import SelfAttention
from mmpeft.hosts.windows import WindowAttention
from mmpeft.methods import CVPT, SSF, Method, Mona
from mmpeft.methods.cvpt import Attention, plain


class PlainMona(Mona):
    """Mona, one operation for each step of the authors' code."""

    reads = ('hw_shape',)

    def forward(self, x: Tensor, hw_shape: tuple[int, int]) -> Tensor:
        height, width = hw_shape
        y = self.down(self.norm(x) * self.gamma + x * self.gammax)
        y = y.reshape(len(x), height, width, -1).permute(0, 3, 1, 2)
        y = (self.conv3(y) + self.conv5(y) + self.conv7(y)) / 3 + y
        y = y + self.pointwise(y)
        y = y.permute(0, 2, 3, 1).reshape(len(x), height * width, -1)
        return x + self.up(F.dropout(F.gelu(y), self.dropout, self.training))


class PlainSSF(SSF):
    """SSF as a product and a sum, after whatever layer."""

    reads = ()
    folds = False
    after_linear = Method.after_linear

    def forward(self, x: Tensor) -> Tensor:
        shape = [1] * x.dim()
        shape[self.channel_axis] = -1
        return x * self.scale.view(shape) + self.shift.view(shape)


class PlainCVPT(CVPT):
    """CVPT with keys and values for each sample, and all four projections applied."""

    reads = ('attention',)

    def forward(self, x: Tensor, attention: Attention) -> Tensor:
        prompts = F.dropout(self.prompts.expand(len(x), -1, -1), self.dropout, self.training)
        y = F.dropout(plain(x, prompts, self.weights(attention)), attention.out_dropout, self.training)
        return y if self.beside else x + y


class StockAttention(Host):
    """The stock attention, where no adapter sits in it."""

    def forward(self, *args, **kwargs) -> Any:
        return super().forward(*args, **kwargs) if self.adapters else self.stock.forward(self, *args, **kwargs)


class PlainWindowAttention(StockAttention, WindowAttention):
    """That of Swin."""


class PlainSelfAttention(StockAttention, SelfAttention):
    """That of mmseg's ViT."""


class PlainRelativeAttention(StockAttention, RelativeAttention):
    """That of BEiT and MAE."""


class PlainCosineAttention(StockAttention, CosineAttention):
    """That of Swin V2."""


PLAIN = {Mona: PlainMona, SSF: PlainSSF, CVPT: PlainCVPT}
PLAIN_HOSTS = {
    WindowAttention: PlainWindowAttention,
    SelfAttention: PlainSelfAttention,
    RelativeAttention: PlainRelativeAttention,
    CosineAttention: PlainCosineAttention,
}


def use_plain_forms(backbone: nn.Module) -> bool:
    """Let the adapters in ``backbone`` compute as published; whether there is one that then computes otherwise.

    The attention of the base then is the stock one.
    """
    for module in backbone.modules():
        host = PLAIN_HOSTS.get(getattr(module, 'host', None))
        if host:
            module.__class__ = subclass(module.stock, host)
    adapters = [adapter for _, adapter in adapters_of(backbone) if type(adapter) in PLAIN]
    for adapter in adapters:
        adapter.__class__ = PLAIN[type(adapter)]
    return bool(adapters)
