"""Fold what can be folded into the base; what folds fully leaves a stock model without a trace of mmpeft."""

import copy
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mmpeft.freeze import adapted_backbones
from mmpeft.hosts import Backbone, Host, adapters_of
from mmpeft.methods import METHODS


@dataclass(frozen=True)
class MergeReport:
    """What ``merge`` did: places that were folded, places that keep their adapter, and biases that stock lacks."""

    folded: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    new_biases: tuple[str, ...] = ()

    @property
    def is_stock(self) -> bool:
        """Whether the model now has stock classes and stock keys alone."""
        return not self.kept and not self.new_biases

    def __str__(self) -> str:
        lines = [f'{len(self.folded)} adapters were folded into the base.']
        if self.kept:
            lines.append(
                f'{len(self.kept)} adapters stay, because no layer can take them: {self.kept[0]} and the like.'
            )
        if self.new_biases:
            lines.append(
                f'{", ".join(self.new_biases)} had no bias to take the shift and got one: a model from the stock '
                'config has no place for it, so this one does not load there.'
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
    """
    reports = [_merge_backbone(name, backbone) for name, backbone in adapted_backbones(model).items()]
    return MergeReport(*(sum((getattr(r, key) for r in reports), ()) for key in ('folded', 'kept', 'new_biases')))


def _merge_backbone(name: str, backbone: Backbone) -> MergeReport:
    prefix = f'{name}.' if name else ''
    folded, new_biases = [], []
    # A reduction hands its shift to the norm before it, which has to be folded by then.
    for place, adapter in sorted(adapters_of(backbone), key=lambda item: item[0].endswith('.reduction')):
        if _folds(backbone, place, adapter):
            new_biases += _fold(backbone, place, adapter)
            folded.append(prefix + place)
    kept = [prefix + place for place, _ in adapters_of(backbone)]
    if kept:
        backbone.adapter_methods = tuple(_what_stays(backbone))
    else:
        _restore_stock(backbone)
    return MergeReport(tuple(folded), tuple(kept), tuple(prefix + bias for bias in new_biases))


def _folds(backbone: Backbone, place: str, adapter: nn.Module) -> bool:
    owner, _, site = place.rpartition('.')
    return hasattr(adapter, 'fold') and backbone.get_submodule(owner).layer_of(site) is not None


def _what_stays(backbone: Backbone) -> Iterator[dict]:
    """The configs of the methods whose adapters are still there, each with the sites where they are."""
    sites = defaultdict(list)
    for place, adapter in adapters_of(backbone):
        sites[type(adapter).__name__].append(place.rpartition('.')[2])
    for config in backbone.adapter_methods:
        if config['type'] in sites:
            foldable = hasattr(METHODS[config['type']], 'fold')
            yield {**config, 'sites': sorted(set(sites[config['type']]))} if foldable else config


def _fold(backbone: Backbone, place: str, adapter: nn.Module) -> list[str]:
    """Fold one adapter and take it out; the names of biases that had to be made."""
    owner_name, _, site = place.rpartition('.')
    owner: Host = backbone.get_submodule(owner_name)
    layer, weight_name, bias_name = owner.layer_of(site)
    weight, bias = getattr(layer, weight_name), getattr(layer, bias_name)
    exact = copy.deepcopy(adapter).double()
    new_weight, new_bias = exact.fold(weight.double(), None if bias is None else bias.double())
    weight.copy_(new_weight)
    del owner.adapters[site]
    if not owner.adapters:
        _restore_class(owner)
    if bias is not None:
        bias.copy_(new_bias)
    elif new_bias is not None:
        norm = backbone.norm_before(owner_name)
        if norm is None:
            setattr(layer, bias_name, nn.Parameter(new_bias.to(weight.dtype)))
            return [f'{owner_name}.{bias_name}']
        norm.bias += _solve(new_weight, new_bias)
    return []


def _solve(weight: Tensor, shift: Tensor) -> Tensor:
    """The smallest input that a linear layer of full row rank turns into ``shift``."""
    return torch.linalg.pinv(weight) @ shift


def _restore_stock(backbone: Backbone) -> None:
    """Give every module its stock class back and leave none of our attributes behind."""
    for module in list(backbone.modules()):
        if isinstance(module, Host):
            _restore_class(module)
    backbone.requires_grad_(True)
    backbone.train(backbone.training)


def _restore_class(module: Host) -> None:
    del module.adapters
    for attribute in module.state:
        vars(module).pop(attribute, None)
    module.__class__ = module.stock
