"""The optimizer wrapper constructor that knows adapters."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from mmengine.logging import MMLogger
from mmengine.model import is_model_wrapper
from mmengine.optim import DefaultOptimWrapperConstructor, OptimWrapper
from torch import nn

from mmpeft.freeze import adapted_backbones, is_adapter
from mmpeft.hosts import adapters_of
from mmpeft.registry import OPTIM_WRAPPER_CONSTRUCTORS


@contextmanager
def _without_lines_per_tensor() -> Iterator[None]:
    """Keep mmengine's line for each frozen tensor and each rule out of the log: there are hundreds."""

    def keep(record: logging.LogRecord) -> bool:
        message = record.getMessage()
        return 'is skipped since its requires_grad=False' not in message and 'paramwise_options -- ' not in message

    logger = MMLogger.get_current_instance()
    logger.addFilter(keep)
    try:
        yield
    finally:
        logger.removeFilter(keep)


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class AdapterOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """mm's default constructor with the methods' own decay and learning-rate rules for adapters.

    An adapter's parameter follows its method: the base learning rate, and no decay where the authors have none.
    Of the user's ``custom_keys`` only those that name ``adapters`` reach it, so ``backbone=dict(lr_mult=0.1)``,
    meant for pretrained weights, does not. Everything else follows mm's rules. Frozen parameters stay out of the
    optimizer, and parameters with equal settings share a group.
    """

    def __call__(self, model: nn.Module) -> OptimWrapper:
        inner = model.module if is_model_wrapper(model) else model
        user_keys = self.paramwise_cfg.get('custom_keys', {})
        explicit = [key for key in user_keys if is_adapter(key)]
        rules = {name: rule for name, rule in adapter_rules(inner).items() if not any(key in name for key in explicit)}
        self.paramwise_cfg = {**self.paramwise_cfg, 'custom_keys': {**user_keys, **rules}}
        with _without_lines_per_tensor():
            return super().__call__(model)

    def add_params(self, params: list[dict], module: nn.Module, prefix: str = '', is_dcn_module=None) -> None:
        super().add_params(params, module, prefix, is_dcn_module)
        if not prefix:
            params[:] = _merged(params)


def adapter_rules(model: nn.Module) -> dict[str, dict[str, float]]:
    """The rule of each adapter parameter in ``model`` by its full name, as an entry of ``custom_keys``."""
    rules = {}
    for backbone_name, backbone in adapted_backbones(model).items():
        for place, adapter in adapters_of(backbone):
            owner, _, site = place.rpartition('.')
            path = '.'.join(filter(None, (backbone_name, owner, 'adapters', site)))
            for leaf, _ in adapter.named_parameters():
                decays = leaf.split('.')[0] not in adapter.no_decay
                rules[f'{path}.{leaf}'] = dict(lr_mult=1.0, decay_mult=1.0 if decays else 0.0)
    return rules


def _merged(groups: list[dict]) -> list[dict]:
    """The groups with those of equal settings made one, in order of appearance."""
    merged = {}
    for group in groups:
        settings = {key: value for key, value in group.items() if key != 'params'}
        merged.setdefault(repr(sorted(settings.items())), dict(settings, params=[]))['params'] += group['params']
    return list(merged.values())
