"""The config of a method: read, checked, filled up and compared."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from mmpeft.methods.method import Method
from mmpeft.methods.registration import check_option, method_named, options_of
from mmpeft.sites import SITES

# Options that are sets of names: in whatever order and however often, they mean the same.
UNORDERED = ('sites', 'targets')


def parse(method: Mapping | Sequence[Mapping]) -> list[dict]:
    """The methods as a list of plain dicts whose type, options and sites are known.

    Raises:
        ValueError: A type, an option or a site is unknown, or ``method`` is no dict and no list of dicts.
    """
    methods = [method] if isinstance(method, Mapping) else method
    if not isinstance(methods, Sequence) or not methods or not all(isinstance(m, Mapping) for m in methods):
        raise ValueError(f"A method is a dict such as dict(type='Mona'), or a list of such; got {method!r}.")
    return [_parse_one(dict(m)) for m in methods]


def _parse_one(config: dict) -> dict:
    config = {option: plain(value) for option, value in config.items()}
    cls = method_named(config.get('type'))
    name, place_option = cls.__name__, getattr(cls, 'place_option', None)
    if place_option and 'sites' in config:
        raise ValueError(f'{name} takes no sites: its option {place_option!r} says where it goes.')
    options = options_of(cls)
    known = [*(['sites'] if _takes_sites(cls) else []), 'blocks', *options]
    for option, value in config.items():
        if option not in ('type', *known):
            raise ValueError(f'{name} has no option {option!r}; its options: {", ".join(known)}.')
        if option in options:
            check_option(cls, option, value)
    if 'sites' in config:
        _check_sites(config['sites'])
    _check_pattern(config.get('blocks', ''))
    return config


def _check_sites(sites: Sequence[str]) -> None:
    if isinstance(sites, str) or not isinstance(sites, Sequence) or not sites:
        raise ValueError(f"sites is a list of places, such as ['after_attn'], got {sites!r}.")
    for site in sites:
        if site not in SITES:
            raise ValueError(f'Unknown site {site!r}; known sites: {", ".join(SITES)}.')


def _check_pattern(pattern: str) -> None:
    try:
        re.compile(pattern)
    except (re.error, TypeError) as error:
        raise ValueError(f'blocks is a regular expression, got {pattern!r}: {error}.') from error


def full_options(config: Mapping) -> dict:
    """The config of one method with the defaults of what it leaves out; configs that mean the same become equal."""
    cls = method_named(config['type'])
    options = options_of(cls) | dict(blocks='')
    options |= dict(sites=cls.sites) if _takes_sites(cls) else {}
    options |= config
    for name in getattr(cls, 'execution', ()):
        del options[name]
    return normal(options)


def chosen_options(config: Mapping) -> dict:
    """What ``full_options`` fills up, without the defaults; default sites that a backbone lacks then do no harm."""
    defaults = full_options(dict(type=config['type']))
    return {name: value for name, value in config.items() if name == 'type' or value != defaults.get(name)}


def normal(options: Mapping) -> dict:
    """Options in the one way in which they are compared and written: plain, and sets of names in order."""
    options = {name: plain(value) for name, value in options.items()}
    sets = {name: options[name] for name in UNORDERED if isinstance(options.get(name), list | str)}
    return options | {name: sorted({*map(str, names)}) for name, names in sets.items()}


def plain(value: Any) -> Any:
    """Numbers and arrays of NumPy and torch as Python's own, tuples as lists, inside lists too."""
    value = value.tolist() if hasattr(value, 'tolist') else value
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value


def _takes_sites(cls: type) -> bool:
    return issubclass(cls, Method) and cls.place_option is None
