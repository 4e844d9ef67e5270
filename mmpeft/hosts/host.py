"""A host: a stock module whose class is swapped in place for a subclass that visits its adapters."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch.nn.functional as F
from torch import Tensor, nn


def qualified_name(cls: type) -> str:
    """The module and the name of ``cls``, by which stock classes are known without importing them."""
    return f'{cls.__module__}.{cls.__qualname__}'


class Host:
    """Mixin placed before a stock class; its forward visits the sites of the module.

    ``state`` names what it keeps in the module beside its adapters.
    """

    state: tuple[str, ...] = ()

    @staticmethod
    def sizes(module: nn.Module, site: str) -> dict[str, int]:
        """The sizes that an adapter at ``site`` of a stock ``module`` is built from: ``dim`` and the like."""
        raise NotImplementedError

    def layer_of(self, site: str) -> tuple[nn.Module, str, str] | None:
        """The layer whose output ``site`` is, with the names of its weight and bias; None if it is of no layer."""
        return None

    def run(self, adapter: nn.Module, x: Tensor, hw_shape: tuple[int, int] | None) -> Tensor:
        """Give ``adapter`` what it needs beside ``x``."""
        return adapter(x, hw_shape) if adapter.needs_grid else adapter(x)

    def at(self, site: str, value: Tensor, x: Tensor, hw_shape: tuple[int, int] | None = None) -> Tensor:
        """What goes on from ``site``: the value itself, or what the adapter there makes of it.

        An adapter that works beside the site adds what it computes from ``x``, the site's input; any other turns
        ``value`` into a new one.
        """
        if site not in self.adapters:
            return value
        adapter = self.adapters[site]
        return value + self.run(adapter, x, hw_shape) if adapter.beside else self.run(adapter, value, hw_shape)

    def at_linear(self, site: str, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """What goes on from ``site``, the output of a linear layer, which an adapter may compute itself."""
        compute = getattr(self.adapters[site], 'after_linear', None) if site in self.adapters else None
        return compute(x, weight, bias) if compute else self.at(site, F.linear(x, weight, bias), x)

    def __reduce__(self):
        return _blank, (self.stock, self.host), self.__dict__


@cache
def subclass(stock: type, host: type[Host]) -> type:
    """The one class that is ``host`` before ``stock``, under the stock name."""
    names = {name: getattr(stock, name) for name in ('__module__', '__qualname__', '__doc__')}
    return type(stock)(stock.__name__, (host, stock), {**names, 'stock': stock, 'host': host})


def adapt_as(module: nn.Module, host: type[Host]) -> None:
    """Swap the class of ``module`` in place for one with ``host`` and give it an empty child named ``adapters``."""
    module.__class__ = subclass(type(module), host)
    module.adapters = nn.ModuleDict()


def _blank(stock: type, host: type[Host]) -> Host:
    """An object without content, for copy and pickle to fill."""
    cls = subclass(stock, host)
    return cls.__new__(cls)


def adapters_of(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield each adapter in ``module`` with its place: ``stages.0.blocks.0.after_attn`` and the like."""
    for owner_name, owner in module.named_modules():
        if isinstance(owner, Host):
            for site, adapter in owner.adapters.items():
                yield f'{owner_name}.{site}'.lstrip('.'), adapter


@contextmanager
def hidden_adapters(module: nn.Module) -> Iterator[None]:
    """Take the adapters out of ``module``, so that stock code walks through it as if it had none."""
    hosts = [m for m in module.modules() if isinstance(m, Host) and 'adapters' in m._modules]
    taken = [host._modules.pop('adapters') for host in hosts]
    try:
        yield
    finally:
        for host, adapters in zip(hosts, taken, strict=True):
            host.adapters = adapters
