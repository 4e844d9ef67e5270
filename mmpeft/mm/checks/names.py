"""Configs in pure Python have classes and functions for types: put names in their place, as other configs have."""

from collections.abc import Iterator
from types import FunctionType
from typing import Any

import mmengine.registry
from mmengine.config import Config
from mmengine.registry import Registry

KEYS = ('type', 'constructor')
LIBRARIES = ('mmdet', 'mmseg', 'mmrotate', 'mmpretrain')


def find_scope(cfg: Config) -> str | None:
    """The scope of ``cfg``, or else the library that the class of its model is from."""
    if cfg.get('default_scope'):
        return cfg.default_scope
    kind = cfg.model.get('type') if isinstance(cfg.get('model'), dict) else None
    library = getattr(kind, '__module__', '').partition('.')[0]
    return library if library in LIBRARIES else None


def has_classes(cfg: Config) -> bool:
    """Whether any type in ``cfg`` is no name."""
    return next(_classes(cfg), None) is not None


def use_names(cfg: Config) -> None:
    """Put its name in the place of each registered class or function of ``cfg``; others stay.

    The name has a scope where it would be another's in the default scope of ``cfg``, whose library is registered.
    """
    for node, key in [*_classes(cfg)]:
        node[key] = _name_of(node[key], cfg.default_scope) or node[key]


def _classes(node: Any) -> Iterator[tuple[dict, str]]:
    """The places in a config that hold a class or a function for a name."""
    if isinstance(node, dict | Config):
        for key, value in node.items():
            if key in KEYS and isinstance(value, type | FunctionType):
                yield node, key
            yield from _classes(value)
    elif isinstance(node, list | tuple):
        for child in node:
            yield from _classes(child)


def _name_of(kind: Any, scope: str) -> str | None:
    scoped = None
    for root in vars(mmengine.registry).values():
        for registry in _with_children(root) if isinstance(root, Registry) else ():
            for name in [name for name, other in registry.module_dict.items() if other is kind]:
                if _with_scope(root, scope).get(name) is kind:
                    return name
                scoped = scoped or f'{registry.scope}.{name}'
    return scoped


def _with_children(registry: Registry) -> Iterator[Registry]:
    yield registry
    for child in registry.children.values():
        yield from _with_children(child)


def _with_scope(root: Registry, scope: str) -> Registry:
    return next((registry for registry in _with_children(root) if registry.scope == scope), root)
