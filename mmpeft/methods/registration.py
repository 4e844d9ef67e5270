"""Which methods there are, and what a class must say of itself to become one."""

import inspect
from types import UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from mmpeft.methods.method import READS, SIZES, Method, Tuning
from mmpeft.sites import SITES

METHODS: dict[str, type[Method] | type[Tuning]] = {}
Cls = TypeVar('Cls', bound=type)
# What a config gives every method beside its options.
RESERVED = ('type', 'sites', 'blocks')


def register_method(cls: Cls) -> Cls:
    """Let configs name a class as a method, by the name of the class; a decorator.

    Args:
        cls: A subclass of ``Method`` or ``Tuning``.

    Raises:
        ValueError: It breaks the protocol, or there is another method of this name. Nothing is registered then.
    """
    if not (isinstance(cls, type) and issubclass(cls, Method | Tuning)):
        raise ValueError(f'A method is a subclass of mmpeft.methods.Method or mmpeft.methods.Tuning, got {cls!r}.')
    name = cls.__name__
    if METHODS.get(name, cls) is not cls:
        other = METHODS[name]
        raise ValueError(
            f'There is a method {name} already, {other.__module__}.{other.__qualname__}; rename the class.'
        )
    _check_constructor(cls)
    if issubclass(cls, Method):
        _check_says(cls)
    METHODS[name] = cls
    return cls


def method_named(name: Any) -> type[Method] | type[Tuning]:
    """The method of this name.

    Raises:
        ValueError: There is none.
    """
    if not isinstance(name, str) or name not in METHODS:
        raise ValueError(
            f'Unknown method {name!r}; known methods: {", ".join(METHODS)}. A method of your own is known once its '
            'file is imported (custom_imports in a config), which calls mmpeft.register_method.'
        )
    return METHODS[name]


def options_of(cls: type) -> dict[str, Any]:
    """The options of a method with their defaults, beside its type, ``sites`` and ``blocks``."""
    return {p.name: p.default for p in inspect.signature(cls).parameters.values() if p.name not in SIZES}


def check_option(cls: type, name: str, value: Any) -> None:
    """Refuse a value that is not of the type which the constructor declares.

    Raises:
        ValueError: With the value and the type.
    """
    hint = get_type_hints(cls.__init__).get(name, Any)
    if not _fits(value, hint):
        wanted = hint.__name__ if isinstance(hint, type) and not get_args(hint) else hint
        raise ValueError(f'{cls.__name__} takes {name} as {wanted}, got {value!r}.')


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value of a config, in which lists stand for tuples, is of a type; types that are not plain all fit."""
    if get_origin(hint) is UnionType:
        return any(_fits(value, part) for part in get_args(hint))
    if get_origin(hint) is tuple:
        return isinstance(value, list | tuple) and all(_fits(item, get_args(hint)[0]) for item in value)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint) if hint in (bool, str, type(None)) else True


def _check_constructor(cls: type) -> None:
    """Refuse a constructor whose arguments are not each a size, or an option with a name and a default."""
    for p in inspect.signature(cls).parameters.values():
        if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD, p.POSITIONAL_ONLY):
            raise ValueError(
                f'{cls.__name__}.__init__ takes {p}: an option needs a name of its own, to stand in configs.'
            )
        if p.name in SIZES and issubclass(cls, Tuning):
            raise ValueError(
                f'{cls.__name__}.__init__ takes {p.name}, which a method that inserts nothing is not told.'
            )
        if p.name not in SIZES and p.default is p.empty:
            raise ValueError(
                f'{cls.__name__}.__init__: {p.name} is none of the sizes {", ".join(SIZES)}, so it is an '
                'option, and an option needs a default.'
            )
        if p.name in RESERVED:
            raise ValueError(f'{cls.__name__} has an option {p.name!r}, which every config of a method has already.')


def _check_says(cls: type[Method]) -> None:
    """Refuse what a class says of itself where it is not of its kind or not known."""
    options = options_of(cls)
    lists = dict(sites=SITES, reads=READS, no_decay=None, execution=tuple(options))
    for attribute, known in lists.items():
        value = getattr(cls, attribute)
        if not isinstance(value, tuple) or not all(isinstance(item, str) for item in value):
            raise ValueError(f"{cls.__name__}.{attribute} is a tuple of names, such as ('a',), got {value!r}.")
        unknown = [item for item in value if known is not None and item not in known]
        if unknown:
            raise ValueError(f'{cls.__name__}.{attribute} names {unknown[0]!r}; known: {", ".join(known)}.')
    if not cls.sites:
        raise ValueError(f'{cls.__name__}.sites is empty: say where its adapters go by default.')
    if cls.place_option is not None and cls.place_option not in options:
        raise ValueError(f'{cls.__name__}.place_option is {cls.place_option!r}; its options: {", ".join(options)}.')
    for attribute in ('takes_maps', 'folds', 'shifts'):
        if not isinstance(getattr(cls, attribute), bool):
            raise ValueError(f'{cls.__name__}.{attribute} is True or False, got {getattr(cls, attribute)!r}.')
    for method, wanted in dict(reset_parameters=True, fold=cls.folds).items():
        if wanted and not cls.has_own(method):
            raise ValueError(f'{cls.__name__} needs a {method} of its own.')
    if not cls.has_own('forward') and not cls.has_own('after_linear'):
        raise ValueError(f'{cls.__name__} needs a forward or an after_linear of its own, which says what it computes.')
