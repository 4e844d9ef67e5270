"""What a host is: a stock module whose class is swapped in place for a subclass that visits its adapters."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache, reduce
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmpeft.hosts.call import Call, current_call
from mmpeft.start import draw

# What FSDP, FSDP2 and tensor parallelism (DTensor), and DeepSpeed's ZeRO-3 set on parameters that they shard.
SHARD_MARKS = ('_fsdp_flattened', 'device_mesh', 'ds_id')
# The name of a weight or bias in a module; of one whose rows lie in several places, those of its parts in order. A part
# that is not there is zero. None stands for one of a bias that is zero because the module computes the same with any.
Names = str | tuple[str | None, ...]


def qualified_name(cls: type) -> str:
    """The module and the name of ``cls``, by which stock classes are known without importing them."""
    return f'{cls.__module__}.{cls.__qualname__}'


def is_shard(parameter: nn.Parameter) -> bool:
    """Whether this process holds a part of the parameter alone."""
    return any(hasattr(parameter, mark) for mark in SHARD_MARKS)


def is_adapter(name: str) -> bool:
    """Whether the parameter or buffer of this name was added by an adapter: a path component is ``adapters``."""
    return 'adapters' in name.split('.')


class Host:
    """Mixin placed before a stock class; its forward visits the sites of the module.

    The base of all hosts: ``leaf.py`` has those of single layers, ``block.py`` that of transformer blocks, and
    ``backbone.py`` that of whole backbones.

    Attributes:
        state: The names of what this class keeps in the module beside its adapters.
        compiles: Whether adapters run by compiled code, where they have such.
        calls_stock: Whether its forward calls that of the stock class, so that subclasses with another are known, too.
        parts: For submodules that the host relies on, by their names in the module, the classes that it knows, by
            their qualified names; a subclass with a forward of its own is not known. ``''`` is the module itself.
        adapters: The adapters in the module, by their sites.
    """

    state: tuple[str, ...] = ()
    compiles = False
    calls_stock = False
    parts: Mapping[str, tuple[str, ...]] = {}
    adapters: nn.ModuleDict

    @staticmethod
    def sizes(module: nn.Module, site: str) -> dict[str, Any]:
        """What an adapter at ``site`` of a stock ``module`` can be built from, of ``mmpeft.methods.method.SIZES``."""
        raise NotImplementedError

    def layer_of(self, site: str) -> tuple[nn.Module, Names, Names] | None:
        """The layer whose output ``site`` is, with the names of its weight and bias; None if it is of no layer."""
        return None

    @classmethod
    def check(cls, module: nn.Module) -> None:
        """Refuse a stock module whose parts are not those that this host was written for.

        Raises:
            ValueError: It names the part, its class and the classes that are known.
        """
        for name, known in cls.parts.items():
            part = module.get_submodule(name)
            if not is_one_of(type(part), known):
                raise ValueError(
                    f'its {name} is a {qualified_name(type(part))}, and its adapters were written for '
                    f'{" or ".join(known)}'
                )

    @classmethod
    def check_attention(cls, module: nn.Module) -> None:
        """Refuse a stock block whose self-attention is more than its weights tell an adapter that reads them.

        Raises:
            ValueError: It names what else there is.
        """

    def tell(self, what: str, adapter: nn.Module, call: Call | None) -> Any:
        """What an adapter that reads ``what``, one of ``mmpeft.methods.method.READS``, is called with."""
        if what == 'together':
            return call.together.get(adapter)
        return call if what == 'call' else call.hw_shape

    def run(self, adapter: nn.Module, x: Tensor, call: Call | None) -> Tensor:
        """What ``adapter`` makes of ``x`` in this call."""
        reads = [self.tell(what, adapter, call) for what in adapter.reads]
        out = adapter.compiled(x, *reads) if self.compiles else None
        return adapter(x, *reads) if out is None else out

    def at(self, site: str, value: Tensor, x: Tensor, call: Call | None = None) -> Tensor:
        """What goes on from ``site``: the value itself, or what the adapter there makes of it.

        An adapter that works beside the site adds what it computes from ``x``, the site's input; any other turns
        ``value`` into a new one.
        """
        if site not in self.adapters:
            return value
        adapter = self.adapters[site]
        return value + self.run(adapter, x, call) if adapter.beside else self.run(adapter, value, call)

    def at_linear(self, site: str, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """What goes on from ``site``, the output of a linear layer, which an adapter computes with its own."""
        adapter = self.adapters[site] if site in self.adapters else None
        call = current_call()
        if adapter is not None and adapter.has_own('after_linear'):
            return adapter.after_linear(x, weight, bias, *[self.tell(what, adapter, call) for what in adapter.reads])
        y = F.linear(x, call.cast(weight), call.cast(bias))
        if adapter is None:
            return y
        return y + self.run(adapter, x, call) if adapter.beside else self.run(adapter, y, call)

    def at_projections(
        self, x: Tensor, other: Tensor, weight: Tensor, bias: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """What goes on from the site ``qkv``: queries of ``x``, and keys and values of ``other``.

        An adapter that folds is folded into the weight, of which each of the two takes its rows.

        Shape: ``(..., N, C), (..., M, C), (3 C, C), (3 C) -> (..., N, C), (..., M, C), (..., M, C)``
        """
        call, adapter = current_call(), self.adapters['qkv'] if 'qkv' in self.adapters else None
        if adapter is not None and not adapter.folds:
            q, (_, k, v) = (self.at_linear('qkv', tokens, weight, bias).chunk(3, dim=-1) for tokens in (x, other))
            return q[0], k, v
        if adapter is None:
            weight, bias = call.cast(weight), call.cast(bias)
        else:
            weight, bias = adapter.fold(weight, bias)
        rows = len(weight) // 3
        q, kv = (
            F.linear(tokens, weight[part], None if bias is None else bias[part])
            for tokens, part in ((x, slice(rows)), (other, slice(rows, None)))
        )
        return q, *kv.chunk(2, dim=-1)

    def restore(self) -> None:
        """Give the module its stock class back, and leave none of our attributes in it."""
        del self.adapters
        for cls in type(self).__mro__:
            for attribute in vars(cls).get('state', ()):
                vars(self).pop(attribute, None)
        self.__class__ = self.stock

    def __reduce__(self):
        return _blank, (self.stock, self.host), self.__dict__


def is_one_of(cls: type, names: tuple[str, ...]) -> bool:
    """Whether ``cls`` is one of the classes of these qualified names, or a subclass that computes as one of them."""
    return any(qualified_name(base) in names and cls.forward is base.forward for base in cls.__mro__)


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


def hosts_in(module: nn.Module) -> Iterator[tuple[str, Host]]:
    """Yield each host in ``module``, itself included, with its full name."""
    return ((name, owner) for name, owner in module.named_modules() if isinstance(owner, Host))


def adapters_of(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield each adapter in ``module`` with its place: ``stages.0.blocks.0.after_attn`` and the like."""
    for name, owner in hosts_in(module):
        for site, adapter in owner.adapters.items():
            yield f'{name}.{site}'.lstrip('.'), adapter


def layer_tensors(host: type[Host], module: nn.Module, site: str) -> tuple[Tensor | None, Tensor | None]:
    """Weight and bias of the layer whose output a site of a stock or adapted module is; None for what is not there."""
    target = host.layer_of(module, site)
    if target is None:
        return None, None
    layer, *both = target
    return tuple(_joined([part_of(layer, name) for name in each(names)]) for names in both)


def each(names: Names) -> tuple[str | None, ...]:
    """The names of the parts of a weight or a bias, in the order of their rows."""
    return (names,) if isinstance(names, str) else names


def part_of(layer: nn.Module, name: str | None) -> Tensor | None:
    """The tensor of that name in ``layer``, if there is one."""
    return name and reduce(lambda module, leaf: getattr(module, leaf, None), name.split('.'), layer)


def _joined(parts: list[Tensor | None]) -> Tensor | None:
    there = next((part for part in parts if part is not None), None)
    if len(parts) == 1 or there is None:
        return there
    return torch.cat([torch.zeros_like(there) if part is None else part for part in parts])


def start(backbone: nn.Module, place: str) -> None:
    """Put the adapter at ``place`` back to its starting values."""
    name, _, site = place.rpartition('.')
    owner = backbone.get_submodule(name)
    draw(owner.adapters[site], place, *layer_tensors(owner.host, owner, site))


@contextmanager
def hidden_adapters(module: nn.Module) -> Iterator[None]:
    """Take the adapters out of ``module``, so that stock code fills it as if it had none."""
    taken = [(host, host.adapters) for _, host in hosts_in(module)]
    for host, _ in taken:
        host.adapters = nn.ModuleDict()
    try:
        yield
    finally:
        for host, adapters in taken:
            host.adapters = adapters
