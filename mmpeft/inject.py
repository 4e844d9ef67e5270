"""Put methods into a backbone: find the places, check everything, then change the model."""

import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from mmpeft.freeze import tuned_names
from mmpeft.hosts import BACKBONES, Backbone, Host, adapt, find_backbone, find_owner
from mmpeft.methods import METHODS, Frozen, Tuning
from mmpeft.report import Report, report
from mmpeft.sites import LEAF_SITES, SITES
from mmpeft.start import draw

# Options that are sets of names: in whatever order and however often, they mean the same.
UNORDERED = ('sites', 'targets')
# What a host tells a layer of its place; everything else in a layer's signature is an option.
SIZES = ('dim', 'in_features', 'out_features', 'channel_axis', 'depth', 'patch_size')


@dataclass(frozen=True)
class Placement:
    """An adapter that was built for one site of one owner and is not inserted yet."""

    owner: str
    site: str
    adapter: nn.Module

    @property
    def place(self) -> str:
        return f'{self.owner}.{self.site}'


def inject(backbone: nn.Module, method: Mapping | Sequence[Mapping], recompute_ffn: bool = False) -> Report:
    """Insert the adapters of ``method`` into ``backbone`` in place.

    Blocks and backbone change class where they stand; every pretrained key keeps its name. Nothing is frozen:
    call ``mmpeft.freeze`` for that.

    Args:
        backbone: A Swin of mmdet, mmseg or mmpretrain, a plain ViT of mmseg or mmpretrain, or an EVA-02 or
            ConvNeXt of mmpretrain.
        method: ``dict(type='Mona', bottleneck=64)`` with the options of the method, or a list of such. ``sites``
            names other places than the method's own; ``blocks`` is a regular expression that the full name of a
            block must match.
        recompute_ffn: Let every transformer block compute the hidden layer of its feed-forward again in the backward
            pass instead of keeping it. Outputs and gradients are the same. Where the backbone itself checkpoints its
            blocks (``with_cp``) this has no effect.

    Returns:
        What was inserted, printable.

    Raises:
        ValueError: The backbone, a method, an option, a site or a pattern is not known or does not fit. The
            backbone is then as it was.
    """
    configs = parse(method)
    _check_backbone(backbone)
    placements = [placement for config in configs for placement in _place(backbone, config)]
    _check_distinct(placements)
    _check_shared_attention(backbone, configs, placements)
    recomputing = _blocks_to_recompute(backbone) if recompute_ffn else []
    names = dict.fromkeys([*_to_adapt(backbone, placements), *recomputing])
    owners = {name: backbone.get_submodule(name) for name in names}
    for owner in owners.values():
        adapt(owner)
    adapt(backbone)
    backbone.wire()
    for name in recomputing:
        owners[name].recompute_ffn = True
    backbone.adapter_methods = tuple(configs)
    for placement in placements:
        owners[placement.owner].adapters[placement.site] = placement.adapter
    return report(backbone)


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
    name = config.get('type')
    if name not in METHODS:
        raise ValueError(f'Unknown method {name!r}; known methods: {", ".join(METHODS)}.')
    place_option = getattr(METHODS[name], 'place_option', None)
    if place_option and 'sites' in config:
        raise ValueError(f'{name} takes no sites: its option {place_option!r} says where it goes.')
    known = [*(['sites'] if _takes_sites(METHODS[name]) else []), 'blocks', *options_of(name)]
    for option in config.keys() - {'type'}:
        if option not in known:
            raise ValueError(f'{name} has no option {option!r}; its options: {", ".join(known)}.')
    for site in config.get('sites', ()):
        if site not in SITES:
            raise ValueError(f'Unknown site {site!r}; known sites: {", ".join(SITES)}.')
    return config


def options_of(name: str) -> list[str]:
    """The options of the method ``name`` beside its type, ``sites`` and ``blocks``."""
    return [option for option in inspect.signature(METHODS[name]).parameters if option not in SIZES]


def full_options(config: Mapping) -> dict:
    """The config of one method with the defaults of what it leaves out; configs that mean the same become equal."""
    cls = METHODS[config['type']]
    parameters = inspect.signature(cls).parameters
    options = {name: parameters[name].default for name in options_of(config['type'])} | dict(blocks='')
    options |= dict(sites=cls.sites) if _takes_sites(cls) else {}
    options |= config
    for name in getattr(cls, 'execution', ()):
        del options[name]
    return normal(options)


def normal(options: Mapping) -> dict:
    """Options in the one way in which they are compared and written: plain, and sets of names in order."""
    options = {name: plain(value) for name, value in options.items()}
    sets = {name: options[name] for name in UNORDERED if isinstance(options.get(name), list | str)}
    return options | {name: sorted({*map(str, names)}) for name, names in sets.items()}


def plain(value: Any) -> Any:
    """Numbers and arrays of NumPy and torch as Python's own, tuples as lists, inside lists too."""
    value = value.tolist() if hasattr(value, 'tolist') else value
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value


def chosen_options(config: Mapping) -> dict:
    """What ``full_options`` fills up, without the defaults; default sites that a backbone lacks then do no harm."""
    defaults = full_options(dict(type=config['type']))
    return {name: value for name, value in config.items() if name == 'type' or value != defaults.get(name)}


def _takes_sites(cls: type) -> bool:
    return not hasattr(cls, 'place_option') and not issubclass(cls, Tuning)


def _check_backbone(backbone: nn.Module) -> None:
    if isinstance(backbone, Backbone):
        types = ', '.join(config['type'] for config in backbone.adapter_methods)
        raise ValueError(f'This backbone carries {types} already; inject all methods in one call, as a list.')
    if find_backbone(type(backbone)) is None:
        inner = getattr(backbone, 'backbone', None)
        hint = ' Pass its .backbone.' if inner is not None and find_backbone(type(inner)) else ''
        raise ValueError(
            f'No host describes {type(backbone).__module__}.{type(backbone).__qualname__}; known backbones: '
            f'{", ".join(BACKBONES)}.{hint} To add one, write a file beside mmpeft/hosts/swin.py.'
        )


def _place(backbone: nn.Module, config: dict) -> list[Placement]:
    cls = METHODS[config['type']]
    if issubclass(cls, Tuning):
        if not tuned_names(backbone, config) and cls is not Frozen:
            raise ValueError(f'{config["type"]} finds no parameter to train in blocks {config.get("blocks")!r}.')
        return []
    _check_blocks(backbone)
    options = {key: value for key, value in config.items() if key not in ('type', 'sites', 'blocks')}
    sites = config.get('sites', _own_sites(cls, backbone))
    places = cls.places(options) if hasattr(cls, 'places') else dict.fromkeys(sites, options)
    owners = {site: _owners(backbone, site) for site in places}
    pattern = config.get('blocks', '')
    chosen = [(site, name) for site, names in owners.items() for name in names if re.search(pattern, name)]
    if not chosen:
        names = sorted({name for names in owners.values() for name in names})
        raise ValueError(f'No place of {config["type"]} matches {pattern!r}; its places: {", ".join(names)}.')
    if hasattr(cls, 'once') and cls.once(options):
        chosen = chosen[:1]
    shared = _wanted(cls, find_backbone(type(backbone)).shared_sizes(backbone))
    return [Placement(name, site, _build(cls, backbone, name, site, shared | places[site])) for site, name in chosen]


def _check_blocks(backbone: nn.Module) -> None:
    """Refuse blocks that only look like those of a known backbone: their layers may do other things."""
    host = find_backbone(type(backbone))
    for name in host.blocks_of(backbone) if 'after_ffn' in host.places else ():
        _host(backbone, name)


def _own_sites(cls: type[nn.Module], backbone: nn.Module) -> list[str]:
    """The sites that the method is made for; of its layers, those that this kind of backbone has."""
    places = find_backbone(type(backbone)).places
    return [site for site in cls.sites if site in places or site not in LEAF_SITES]


def _owners(backbone: nn.Module, site: str) -> list[str]:
    """The full names of the modules that offer ``site``."""
    places = find_backbone(type(backbone)).places
    if site not in places:
        raise ValueError(f'{type(backbone).__name__} has no site {site!r}; its sites: {", ".join(places)}.')
    return [name for name, _ in backbone.named_modules() if re.fullmatch(places[site], name)]


def _build(cls: type[nn.Module], backbone: nn.Module, name: str, site: str, options: dict) -> nn.Module:
    owner = backbone.get_submodule(name)
    sizes = _host(backbone, name).sizes(owner, site)
    _check_fit(cls, name, site, sizes)
    # A layer without memory draws nothing of its own: the generator must not notice that it was built.
    with torch.device('meta'):
        adapter = cls(**_wanted(cls, sizes), **options)
    like = next(owner.parameters())
    if not like.is_meta:  # of a model without memory only the names and sizes are asked
        draw(adapter.to_empty(device='cpu'), f'{name}.{site}')
    return adapter.to(device=like.device, dtype=like.dtype).train(owner.training)


def _host(backbone: nn.Module, name: str) -> type[Host]:
    owner = type(backbone.get_submodule(name))
    host = find_owner(owner)
    if host is None:
        raise ValueError(f'No host describes {name}, a {owner.__module__}.{owner.__qualname__}.')
    return host


def _to_adapt(backbone: nn.Module, placements: list[Placement]) -> list[str]:
    """The names of the modules that must become hosts: tokens that enter one block may pass through others."""
    names = [placement.owner for placement in placements]
    if any(placement.site == 'input' for placement in placements):
        names += find_backbone(type(backbone)).blocks_of(backbone)
    return names


def _blocks_to_recompute(backbone: nn.Module) -> list[str]:
    host = find_backbone(type(backbone))
    if 'after_ffn' not in host.places:
        raise ValueError(
            f'recompute_ffn works in transformer blocks, and {type(backbone).__name__} has none; set with_cp=True in '
            'the backbone instead.'
        )
    _check_blocks(backbone)
    return host.blocks_of(backbone)


def _check_fit(cls: type[nn.Module], name: str, site: str, sizes: dict) -> None:
    if cls.needs_grid and site in LEAF_SITES:
        raise ValueError(f'{cls.__name__} needs the grid of its tokens, which is not known at the leaf site {site!r}.')
    if site == 'input' and 'input' not in cls.sites:
        raise ValueError(f"{cls.__name__} has no tokens to give, and the site 'input' takes nothing else.")
    takes_maps = 'channel_axis' in inspect.signature(cls).parameters or site in getattr(cls, 'convolutions', ())
    if 'channel_axis' in sizes and not takes_maps:
        raise ValueError(f'{cls.__name__} works on tokens, and {name} is a convolution, whose output is a map.')


def _wanted(cls: type[nn.Module], sizes: dict) -> dict:
    """Those of the ``sizes`` that the method asks for."""
    return {name: size for name, size in sizes.items() if name in inspect.signature(cls).parameters}


def _check_distinct(placements: list[Placement]) -> None:
    taken = {}
    for placement in placements:
        other = taken.setdefault(placement.place, placement)
        if other is not placement:
            names = f'{type(other.adapter).__name__} and {type(placement.adapter).__name__}'
            raise ValueError(f'{names} cannot share {placement.place}; choose other sites or blocks for one of them.')


def _check_shared_attention(backbone: nn.Module, configs: list[dict], placements: list[Placement]) -> None:
    """CVPT reads the weights of its block's self-attention, so nothing else may change them."""
    tuned = set().union(*(tuned_names(backbone, config) for config in configs))
    changed = {p.owner for p in placements if p.site in ('qkv', 'proj')} | {name.rpartition('.')[0] for name in tuned}
    places = find_backbone(type(backbone)).places
    layers = [places[site] for site in ('qkv', 'proj') if site in places]
    changed = [name for name in changed if any(re.fullmatch(layer, name) for layer in layers)]
    for placement in placements:
        inside = [name for name in changed if name.startswith(f'{placement.owner}.')]
        if placement.adapter.needs_attention and inside:
            raise ValueError(
                f'CVPT at {placement.place} reads {inside[0]}, which another method changes; choose other sites or '
                'blocks for one of them.'
            )
