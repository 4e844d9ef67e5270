"""What trains and what is frozen: the single truth for freezing, saving, counting and optimizer rules."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from mmpeft.hosts import Backbone, find_backbone
from mmpeft.hosts.host import is_adapter
from mmpeft.methods import METHODS, Tuning


def adapted_backbones(model: nn.Module) -> dict[str, Backbone]:
    """The adapted backbones in ``model`` by their names; the name of ``model`` itself is ``''``."""
    return {name: module for name, module in model.named_modules() if isinstance(module, Backbone)}


def trained_names(backbone: nn.Module) -> set[str]:
    """The names of the parameters that the injected methods train.

    Raises:
        ValueError: No method was injected into ``backbone``.
    """
    if not isinstance(backbone, Backbone):
        hint = ''.join(f' The adapted backbone in it is .{name}.' for name in list(adapted_backbones(backbone))[:1])
        raise ValueError(f'{type(backbone).__name__} holds no method of its own; call mmpeft.inject on it first.{hint}')
    names = {name for name, _ in backbone.named_parameters() if is_adapter(name)}
    return names.union(*(tuned_names(backbone, config) for config in backbone.adapter_methods))


def tuned_names(backbone: nn.Module, config: Mapping) -> set[str]:
    """The names of the base parameters that the method of ``config`` trains in a stock or adapted backbone."""
    cls = METHODS[config['type']]
    if not issubclass(cls, Tuning):
        return set()
    method = cls(**{key: value for key, value in config.items() if key not in ('type', 'blocks')})
    blocks = find_backbone(type(backbone)).blocks_of(backbone)
    pattern = config.get('blocks', '')
    base = {name for name in method.trained(backbone, blocks) if not is_adapter(name)}
    return {name for name in base if re.search(pattern, name.rpartition('.')[0])}


def freeze(backbone: nn.Module) -> None:
    """Let only what the injected methods declare train; everything else in ``backbone`` is frozen.

    Raises:
        ValueError: No method was injected into ``backbone``.
    """
    trained = trained_names(backbone)
    for name, parameter in backbone.named_parameters():
        parameter.requires_grad = name in trained


@dataclass(frozen=True)
class ParameterCounts:
    """Numbers of parameters: those that train, those that are frozen, and those that adapters added."""

    trainable: int
    frozen: int
    adapter: int

    @property
    def total(self) -> int:
        return self.trainable + self.frozen

    @property
    def percent_of_base(self) -> float:
        """Trainable parameters in per cent of the model without its adapters."""
        return 100 * self.trainable / max(self.total - self.adapter, 1)

    @property
    def percent_of_all(self) -> float:
        """Trainable parameters in per cent of the model with its adapters."""
        return 100 * self.trainable / max(self.total, 1)

    def __str__(self) -> str:
        return (
            f'{self.trainable:,} trainable, {self.frozen:,} frozen, {self.adapter:,} in adapters; trainable are '
            f'{self.percent_of_base:.3f} % of the base and {self.percent_of_all:.3f} % of everything'
        )


def count_parameters(model: nn.Module) -> ParameterCounts:
    """Count the parameters of ``model``, a parameter shared by two modules once."""
    sizes = {True: 0, False: 0}
    adapter = 0
    for name, parameter in model.named_parameters():
        sizes[parameter.requires_grad] += parameter.numel()
        adapter += parameter.numel() * is_adapter(name)
    return ParameterCounts(trainable=sizes[True], frozen=sizes[False], adapter=adapter)
