"""Put methods into a backbone: find the places, check everything, then change the model."""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import nn

from mmpeft.freeze import tuned_names
from mmpeft.hosts import BACKBONES, Backbone, Host, PreNormBlock, adapt, find_backbone, find_owner
from mmpeft.hosts.host import each, is_one_of, layer_tensors
from mmpeft.hosts.names import LAYER_NORMS
from mmpeft.hosts.registration import HOW_TO
from mmpeft.methods import Frozen, Method, Place, Tuning
from mmpeft.methods.configs import parse
from mmpeft.methods.registration import method_named
from mmpeft.report import Report, report
from mmpeft.sites import LEAF_SITES
from mmpeft.start import draw


class Placement(NamedTuple):
    """An adapter that was built for a place and is not inserted yet."""

    place: Place
    adapter: Method


def inject(
    backbone: nn.Module, method: Mapping | Sequence[Mapping], recompute_ffn: bool = False, compile: bool = False
) -> Report:
    r"""Insert the adapters of ``method`` into ``backbone`` in place.

    Blocks and backbone change class where they stand; every pretrained key keeps its name. Nothing is frozen:
    call ``mmpeft.freeze`` for that.

    Args:
        backbone: A stock backbone that a host describes; the README lists them.
        method: ``dict(type='Mona', bottleneck=64)`` with the options of the method, or a list of such. ``sites``
            names other places than the method's own; ``blocks`` is a regular expression that is searched for in the
            full names of blocks and layers: ``layers\.1`` finds 1 and 10 to 19, ``layers\.1(\.|$)`` finds 1 alone.
        recompute_ffn: Let every transformer block compute the hidden layer of its feed-forward again in the backward
            pass instead of keeping it. Outputs and gradients are the same. Where the backbone itself checkpoints its
            blocks (``with_cp``) this has no effect.
        compile: Let ``torch.compile`` compile the adapters between layers, Mona and those of two projections, and the
            norms and feed-forwards of all transformer blocks, the layers' own adapters included: once for each kind,
            width and mode, for all sizes of images and batches, and for copies of the backbone, too. Names stay as they
            are. If the compiler fails, a warning says so, and all runs without it.

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
    flags = dict(recompute_ffn=recompute_ffn, compiles=compile)
    blocks = _transformer_blocks(backbone, 'compile' if compile else 'recompute_ffn') if any(flags.values()) else []
    names = dict.fromkeys([*_to_adapt(backbone, placements), *blocks, *_norms_of_lone_bias(backbone, configs)])
    owners = {name: backbone.get_submodule(name) for name in names}
    for owner in owners.values():
        adapt(owner)
    adapt(backbone)
    backbone.watch_loading()
    backbone.wire()
    for name in blocks:
        for flag in flags.items():
            setattr(owners[name], *flag)
    backbone.adapt_linears()
    backbone.adapter_methods = tuple(configs)
    for placement in placements:
        owners[placement.place.owner].adapters[placement.place.site] = placement.adapter
    backbone.adapters_together = tuple(p.adapter for p in placements if 'together' in p.adapter.reads)
    return report(backbone)


def _check_backbone(backbone: nn.Module) -> None:
    if isinstance(backbone, Backbone):
        types = ', '.join(config['type'] for config in backbone.adapter_methods)
        raise ValueError(f'This backbone carries {types} already; inject all methods in one call, as a list.')
    if find_backbone(type(backbone)) is None:
        inner = getattr(backbone, 'backbone', None)
        hint = ' Pass its .backbone.' if inner is not None and find_backbone(type(inner)) else ''
        raise ValueError(
            f'No host describes {type(backbone).__module__}.{type(backbone).__qualname__}; known backbones: '
            f'{", ".join(BACKBONES)}.{hint} {HOW_TO}'
        )
    _check_parts(find_backbone(type(backbone)), backbone, type(backbone).__name__)


def _place(backbone: nn.Module, config: dict) -> list[Placement]:
    cls = method_named(config['type'])
    if issubclass(cls, Tuning):
        if not tuned_names(backbone, config) and cls is not Frozen:
            raise ValueError(f'{config["type"]} finds no parameter to train in blocks {config.get("blocks")!r}.')
        return []
    _check_blocks(backbone)
    options = {key: value for key, value in config.items() if key not in ('type', 'sites', 'blocks')}
    sites = config.get('sites', _own_sites(cls, backbone))
    known = find_backbone(type(backbone)).places
    places = cls.places_in(options, known) if cls.place_option else dict.fromkeys(sites, options)
    owners = {site: _owners(backbone, site) for site in places}
    pattern = config.get('blocks', '')
    chosen = [(site, name) for site, names in owners.items() for name in names if re.search(pattern, name)]
    if not chosen:
        names = sorted({name for names in owners.values() for name in names})
        if not names:
            absent = ', '.join(map(repr, places))
            raise ValueError(f'This {type(backbone).__name__} has no site {absent}: it holds no such block or layer.')
        raise ValueError(f'No place of {config["type"]} matches {pattern!r}; its places: {", ".join(names)}.')
    if cls.once(options):
        chosen = chosen[:1]
    shared, parts = find_backbone(type(backbone)).shared_sizes(backbone), {}
    return [_build(cls, backbone, name, site, shared, places[site], parts) for site, name in chosen]


def _check_blocks(backbone: nn.Module) -> None:
    """Refuse blocks that only look like those of a known backbone: their layers may do other things."""
    host = find_backbone(type(backbone))
    for name in host.blocks_of(backbone) if 'after_ffn' in host.places else ():
        _host(backbone, name)


def _own_sites(cls: type[Method], backbone: nn.Module) -> list[str]:
    """The sites that the method is made for; those that this kind of backbone lacks are left out, if not all."""
    places = find_backbone(type(backbone)).places
    return [site for site in cls.sites if site in places] or list(cls.sites)


def _owners(backbone: nn.Module, site: str) -> list[str]:
    """The full names of the modules that offer ``site``."""
    host = find_backbone(type(backbone))
    if site not in host.places:
        raise ValueError(f'{type(backbone).__name__} has no site {site!r}; its sites: {", ".join(host.places)}.')
    return host.matching(backbone, host.places[site])


def _build(
    cls: type[Method], backbone: nn.Module, name: str, site: str, shared: dict, options: dict, parts: dict
) -> Placement:
    owner, host = backbone.get_submodule(name), _host(backbone, name)
    sizes = {**shared, 'unchanged': not _works_in_place(backbone, name), **host.sizes(owner, site), 'site': site}
    place = Place(name, site, sizes, *layer_tensors(host, owner, site))
    _check_fit(cls, host, place)
    _check_parts(host, owner, name, cls.reads)
    # A layer without memory draws nothing of its own: the generator must not notice that it was built.
    with torch.device('meta'):
        adapter = cls.build(place, options, parts)
    like = next(owner.parameters())
    if not like.is_meta:  # of a model without memory only the names and sizes are asked
        draw(adapter.to_empty(device='cpu'), str(place), place.weight, place.bias)
    return Placement(place, adapter.to(device=like.device, dtype=like.dtype).train(owner.training))


def _works_in_place(backbone: nn.Module, name: str) -> bool:
    """Whether a module beside that of this name changes in place what it is given."""
    around = backbone.get_submodule(name.rpartition('.')[0])
    return any(getattr(module, 'inplace', False) for module in around.children())


def _host(backbone: nn.Module, name: str) -> type[Host]:
    """The host of a block or layer, whose parts it knows."""
    owner = backbone.get_submodule(name)
    host = find_owner(type(owner))
    if host is None:
        cls = type(owner)
        raise ValueError(f'No host describes {name}, a {cls.__module__}.{cls.__qualname__}. {HOW_TO}')
    _check_parts(host, owner, name)
    return host


def _check_parts(host: type[Host], module: nn.Module, name: str, reads: Sequence[str] = ()) -> None:
    try:
        host.check(module)
        if 'attention' in reads:
            host.check_attention(module)
    except (ValueError, AttributeError) as error:
        raise ValueError(f'{name} takes no adapters: {error}. {HOW_TO}') from error


def _to_adapt(backbone: nn.Module, placements: list[Placement]) -> list[str]:
    """The names of the modules that must become hosts: tokens that enter one block may pass through others."""
    names = [placement.place.owner for placement in placements]
    if any(placement.place.site == 'input' for placement in placements):
        names += find_backbone(type(backbone)).blocks_of(backbone)
    return names


def _norms_of_lone_bias(backbone: nn.Module, configs: list[dict]) -> list[str]:
    """The names of the norms whose bias trains and whose weight does not, which takes a way of its own on GPUs."""
    tuned = set().union(*(tuned_names(backbone, config) for config in configs))
    owners = [name.rpartition('.')[0] for name in tuned if name.endswith('.bias')]
    lone = [name for name in owners if f'{name}.weight' not in tuned]
    return [name for name in lone if is_one_of(type(backbone.get_submodule(name)), LAYER_NORMS)]


def _transformer_blocks(backbone: nn.Module, option: str) -> list[str]:
    blocks = find_backbone(type(backbone)).blocks_of(backbone)
    if not blocks or not all(issubclass(_host(backbone, name), PreNormBlock) for name in blocks):
        instead = 'set with_cp=True in the backbone' if option == 'recompute_ffn' else 'leave it out'
        raise ValueError(
            f'{option} works in transformer blocks, and {type(backbone).__name__} has none; {instead} instead.'
        )
    return blocks


def _check_fit(cls: type[Method], host: type[Host], place: Place) -> None:
    if 'channel_axis' in place.sizes and not cls.takes_maps:
        raise ValueError(f'{cls.__name__} works on tokens, and {place.owner} is a convolution, whose output is a map.')
    unknown = [what for what in cls.reads if what not in ('together', 'call')]
    if unknown and place.site in LEAF_SITES:
        known = dict(hw_shape='the grid of its tokens', attention='the attention of its block')
        what = known[unknown[0]]
        raise ValueError(f'{cls.__name__} needs {what}, which is not known at the leaf site {place.site!r}.')
    tells = getattr(host, 'attention_weights', PreNormBlock.attention_weights)
    if 'attention' in cls.reads and tells is PreNormBlock.attention_weights:
        raise ValueError(f'{cls.__name__} needs the attention of its block, which is not known at {place}.')
    if place.site == 'input' and 'input' not in cls.sites:
        raise ValueError(f"{cls.__name__} has no tokens to give, and the site 'input' takes nothing else.")
    if cls.has_own('start_from') and place.weight is None:
        raise ValueError(f'{cls.__name__} starts from the weight of a layer, and {place.site!r} is the output of none.')
    if not cls.has_own('forward') and ('in_features' not in place.sizes or 'channel_axis' in place.sizes):
        raise ValueError(f'{cls.__name__} computes with a linear layer, and {place} is not the output of one.')


def _check_distinct(placements: list[Placement]) -> None:
    taken = {}
    for placement in placements:
        other = taken.setdefault(str(placement.place), placement)
        if other is not placement:
            names = f'{type(other.adapter).__name__} and {type(placement.adapter).__name__}'
            raise ValueError(f'{names} cannot share {placement.place}; choose other sites or blocks for one of them.')


def _check_shared_attention(backbone: nn.Module, configs: list[dict], placements: list[Placement]) -> None:
    """CVPT reads the weights of its block's self-attention, so nothing else may change them."""
    readers = [placement for placement in placements if 'attention' in placement.adapter.reads]
    read = _read_by_attention(backbone) if readers else set()
    tuned = set().union(*(tuned_names(backbone, config) for config in configs))
    changed = {p.place.owner for p in placements if p.place.site in ('qkv', 'proj')} | {
        name.rpartition('.')[0] for name in tuned
    }
    for placement in readers:
        inside = [name for name in changed & read if name.startswith(f'{placement.place.owner}.')]
        if inside:
            raise ValueError(
                f'CVPT at {placement.place} reads {inside[0]}, which another method changes; choose other sites or '
                'blocks for one of them.'
            )


def _read_by_attention(backbone: nn.Module) -> set[str]:
    """The names of the projections of attention: the owners of their sites, and the layers there."""
    places = find_backbone(type(backbone)).places
    sites = [(name, site) for site in ('qkv', 'proj') if site in places for name in _owners(backbone, site)]
    layers = set()
    for name, site in sites:
        layer, weights, _ = _host(backbone, name).layer_of(backbone.get_submodule(name), site)
        layers |= {id(layer.get_submodule(weight.rpartition('.')[0])) for weight in each(weights)}
    return {name for name, _ in sites} | {name for name, module in backbone.named_modules() if id(module) in layers}
