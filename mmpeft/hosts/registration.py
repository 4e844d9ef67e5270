"""Which stock classes are known, by which host, and what a class must say of itself to become a host."""

import re
from collections.abc import Callable
from typing import TypeVar

from torch import nn

from mmpeft.hosts.backbone import Backbone
from mmpeft.hosts.host import Host, adapt_as, qualified_name, subclass
from mmpeft.sites import SITES

# Hosts by the qualified names of the stock classes, which are not imported for that.
BLOCKS: dict[str, type[Host]] = {}
BACKBONES: dict[str, type[Backbone]] = {}
Cls = TypeVar('Cls', bound=type[Host])
HOW_TO = 'docs/extending.md shows how to add one.'


def register_host(*stock: str | type) -> Callable[[Cls], Cls]:
    """Let a class be the host of stock classes; a decorator.

    A subclass of ``Backbone`` is the host of backbones, any other of blocks and layers.

    Args:
        stock: Stock classes, or their qualified names, which need not be importable then.

    Raises:
        ValueError: The host breaks the protocol, or a stock class has another host. Nothing is registered then.
    """
    names = [name if isinstance(name, str) else qualified_name(name) for name in stock]

    def register(host: Cls) -> Cls:
        if not (isinstance(host, type) and issubclass(host, Host)):
            raise ValueError(f'A host is a subclass of mmpeft.hosts.Host, got {host!r}.')
        if not names:
            raise ValueError(f'Say of which stock classes {host.__name__} is the host: register_host(CLASS, ...).')
        known = BACKBONES if issubclass(host, Backbone) else BLOCKS
        for name in names:
            if '.' not in name:
                raise ValueError(f'A stock class is named with its module, package.module.Class, got {name!r}.')
            if known.get(name, host) is not host:
                raise ValueError(f'{name} has the host {known[name].__name__} already.')
        _check_backbone(host) if known is BACKBONES else _check_block(host)
        known.update(dict.fromkeys(names, host))
        return host

    return register


def find_backbone(cls: type) -> type[Backbone] | None:
    """The host of a stock backbone class or of a subclass of one, or None."""
    return next((BACKBONES[name] for name in map(qualified_name, cls.__mro__) if name in BACKBONES), None)


def find_owner(cls: type) -> type[Host] | None:
    """The host of a stock block or layer class, or None; a block with a forward of its own is not known."""
    for base in cls.__mro__:
        host = BLOCKS.get(qualified_name(base))
        if host is not None:
            return host if host.calls_stock or cls.forward is base.forward else None
    return None


def host_of(cls: type) -> type[Host]:
    """The host of a stock class.

    Raises:
        ValueError: No host describes it.
    """
    host = find_owner(cls) or find_backbone(cls)
    if host is None:
        raise ValueError(
            f'No host describes {qualified_name(cls)}; known: {", ".join([*BACKBONES, *BLOCKS])}. {HOW_TO}'
        )
    return host


def adapted(cls: type) -> type:
    """The one subclass of the stock class ``cls`` that carries its host and keeps the stock name.

    Raises:
        ValueError: No host describes ``cls``.
    """
    return subclass(cls, host_of(cls))


def adapt(module: nn.Module) -> None:
    """Swap the class of ``module`` in place for ``adapted`` of it, and give it a place for adapters.

    Raises:
        ValueError: No host describes its class.
    """
    adapt_as(module, host_of(type(module)))


def _check_backbone(host: type[Backbone]) -> None:
    if not host.places:
        raise ValueError(f'{host.__name__}.places is empty: say which sites it has, and where.')
    unknown = [site for site in host.places if site not in SITES]
    if unknown:
        raise ValueError(f'{host.__name__}.places names the site {unknown[0]!r}; known sites: {", ".join(SITES)}.')
    for pattern in (*host.places.values(), *host.bias_options, host.block, host.fresh, host.tables):
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f'{host.__name__} has the pattern {pattern!r}, which is none: {error}.') from error


def _check_block(host: type[Host]) -> None:
    if host.sizes is Host.sizes:
        raise ValueError(f'{host.__name__} needs sizes(module, site): what adapters there are built from.')
