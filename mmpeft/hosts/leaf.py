"""Single layers: what a linear, convolution or norm layer computes goes on through its adapter."""

from torch import Tensor, nn

from mmpeft.hosts.host import Host


class Leaf(Host):
    """A layer with one site, its output; which of the backbone's leaf sites that is, its place tells."""

    def layer_of(self, site: str) -> tuple[nn.Module, str, str]:
        return self, 'weight', 'bias'

    def forward(self, x: Tensor, **options) -> Tensor:
        out = super().forward(x, **options)
        for site in self.adapters:
            out = self.at(site, out, x)
        return out


class Linear(Leaf):
    """``nn.Linear``."""

    @staticmethod
    def sizes(module: nn.Linear, site: str) -> dict[str, int]:
        return dict(dim=module.out_features, in_features=module.in_features, out_features=module.out_features)


class LayerNorm(Leaf):
    """``nn.LayerNorm`` over the last axis."""

    @staticmethod
    def sizes(module: nn.LayerNorm, site: str) -> dict[str, int]:
        return dict(dim=module.normalized_shape[-1])


class Conv2d(Leaf):
    """``nn.Conv2d``: the channels of its output are axis 1."""

    @staticmethod
    def sizes(module: nn.Conv2d, site: str) -> dict[str, int]:
        return dict(dim=module.out_channels, channel_axis=1)
