"""Fold what can be folded into the base; what folds fully leaves a stock model without a trace of mmpeft."""

import copy
import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass, fields
from operator import attrgetter

import torch
from torch import Tensor, nn

from mmpeft.freeze import adapted_backbones
from mmpeft.hosts import Backbone, Host, adapters_of
from mmpeft.hosts.host import each, layer_tensors, part_of
from mmpeft.methods import METHODS
from mmpeft.report import listed


@dataclass(frozen=True)
class MergeReport:
    """What ``merge`` did.

    ``folded`` and ``kept`` are the places of adapters that are gone and that stay. ``new_biases`` are parameters that
    the model as it was built has no place for; a stock backbone built with ``options`` has it: each of them is set to
    True, or to what comes after ``=`` in it.
    """

    folded: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    new_biases: tuple[str, ...] = ()
    options: tuple[str, ...] = ()

    @property
    def settings(self) -> dict[str, bool | str]:
        """The values of ``options``, by their names."""
        return {name: value or True for name, _, value in (option.partition('=') for option in self.options)}

    @property
    def is_stock(self) -> bool:
        """Whether the model now has stock classes and the keys it was built with alone."""
        return not self.kept and not self.new_biases

    def __str__(self) -> str:
        lines = [f'{len(self.folded)} adapters were folded into the base.']
        if self.kept:
            lines.append(f'{len(self.kept)} adapters stay, because no layer can take them: {listed(self.kept)}.')
        if self.new_biases:
            settings = ' and '.join(f'{key}={value!r}' for key, value in self.settings.items())
            lines.append(
                f'{listed(self.new_biases)} had no bias to take the shift and got one: to load there, a stock '
                f'backbone has to be built with {settings}.'
            )
        if self.is_stock:
            lines.append('The model is a stock model.')
        return ' '.join(lines)


@torch.no_grad()
def merge(model: nn.Module) -> MergeReport:
    """Fold the adapters of ``model``, a backbone or a whole model, into its weights in place.

    SSF and LoRA fold exactly; BitFit, NormTuning, Partial and Full have nothing to fold. A backbone without adapters
    left is of its stock class again, trainable throughout. Folding is computed in fp64.

    Returns:
        What was done, printable. Merging again changes nothing.

    Raises:
        ValueError: The model is a task of a bank, whose other tasks hold the same base.
    """
    found = adapted_backbones(model)
    if any(backbone.shared for backbone in found.values()):
        raise ValueError(
            f'The base of this {type(model).__name__} is shared by all tasks of a bank. Merge a copy: '
            'mmpeft.merge(copy.deepcopy(model)).'
        )
    reports = [_merge_backbone(name, backbone) for name, backbone in found.items()]
    keys = [field.name for field in fields(MergeReport)]
    return MergeReport(*(sum((getattr(report, key) for report in reports), ()) for key in keys))


def _merge_backbone(name: str, backbone: Backbone) -> MergeReport:
    prefix = f'{name}.' if name else ''
    folded, new_biases = [], {}
    # A reduction hands its shift to the norm before it, which has to be folded by then.
    for place, adapter in sorted(adapters_of(backbone), key=lambda item: item[0].endswith('.reduction')):
        if _folds(backbone, place, adapter):
            new_biases |= _fold(backbone, place, adapter)
            folded.append(prefix + place)
    kept = [prefix + place for place, _ in adapters_of(backbone)]
    if kept:
        backbone.adapter_methods = tuple(_what_stays(backbone))
    else:
        _restore_stock(backbone)
    biases, options = (prefix + bias for bias in new_biases), sorted(set(' '.join(new_biases.values()).split()))
    return MergeReport(tuple(folded), tuple(kept), tuple(biases), tuple(options))


def _folds(backbone: Backbone, place: str, adapter: nn.Module) -> bool:
    """Whether a layer can take ``adapter``, in a form that stock code can build."""
    owner, _, site = place.rpartition('.')
    module = backbone.get_submodule(owner)
    weight, _ = layer_tensors(module.host, module, site)
    if weight is None or not adapter.folds:
        return False
    layer, _, biases = module.layer_of(site)
    names = [name for name in each(biases) if name]
    if all(part_of(layer, name) is not None for name in names) or backbone.norm_before(owner) is not None:
        return True
    _, shift = adapter.fold(weight, None)
    return shift is None or all(_option_for(backbone, _name_of(backbone, layer, name)) for name in names)


def _name_of(backbone: Backbone, layer: nn.Module, leaf: str) -> str:
    return next(f'{name}.{leaf}' for name, module in backbone.named_modules() if module is layer)


def _option_for(backbone: Backbone, bias: str) -> str | None:
    """The options of the stock class that give it the parameter ``bias``, if it has any."""
    known = {option for cls in backbone.stock.__mro__ for option in inspect.signature(cls.__init__).parameters}
    options = (option for pattern, option in backbone.bias_options.items() if re.fullmatch(pattern, bias))
    return next((option for option in options if option in known), backbone.option_inside(bias))


def _what_stays(backbone: Backbone) -> Iterator[dict]:
    """The configs of the methods whose adapters are still there; of one that folds at some sites, the other sites."""
    left = [(type(adapter).__name__, *place.rpartition('.')[::2]) for place, adapter in adapters_of(backbone)]
    for config in backbone.adapter_methods:
        method, pattern = METHODS[config['type']], config.get('blocks', '')
        own = config.get('sites', method.sites)
        sites = {site for name, owner, site in left if name == config['type'] and re.search(pattern, owner)}
        if not getattr(method, 'folds', False) and sites:
            yield config
        elif sites.intersection(own):
            yield {**config, 'sites': sorted(sites.intersection(own))}


def _fold(backbone: Backbone, place: str, adapter: nn.Module) -> dict[str, str]:
    """Fold one adapter and take it out; the name of a bias that had to be made, with the stock option for it."""
    owner_name, _, site = place.rpartition('.')
    owner: Host = backbone.get_submodule(owner_name)
    layer, weights, biases = owner.layer_of(site)
    weight, bias = layer_tensors(owner.host, owner, site)
    exact = copy.deepcopy(adapter).double()
    new_weight, new_bias = exact.fold(weight.double(), None if bias is None else bias.double())
    parts = [attrgetter(name)(layer) for name in each(weights)]
    rows = [len(part) for part in parts]
    for part, values in zip(parts, new_weight.split(rows), strict=True):
        part.copy_(values)
    del owner.adapters[site]
    if not owner.adapters:
        owner.restore()
    if new_bias is None:
        return {}
    norm = backbone.norm_before(owner_name)
    if bias is None and norm is not None:
        norm.bias += _solve(new_weight, new_bias)
        return {}
    names, made = each(biases), []
    shares = new_bias.split(rows) if len(rows) == len(names) else new_bias.chunk(len(names))
    for name, values in zip(names, shares, strict=True):
        part = part_of(layer, name)
        if part is not None:
            part.copy_(values)
        elif bias is None and name:
            inner, _, leaf = name.rpartition('.')
            setattr(layer.get_submodule(inner), leaf, nn.Parameter(values.to(weight.dtype)))
            made.append(_name_of(backbone, layer, name))
    return {name: _option_for(backbone, name) for name in made}


def _solve(weight: Tensor, shift: Tensor) -> Tensor:
    """The smallest input that a linear layer of full row rank turns into ``shift``."""
    return torch.linalg.pinv(weight) @ shift


def _restore_stock(backbone: Backbone) -> None:
    """Give every module its stock class back and leave none of our attributes behind."""
    for module in list(backbone.modules()):
        if isinstance(module, Host):
            module.restore()
    backbone.requires_grad_(True)
    backbone.train(backbone.training)
