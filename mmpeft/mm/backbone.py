"""Registered builders that return a stock backbone with adapters in it, frozen."""

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import product

from mmengine.config import ConfigDict
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import DefaultScope
from torch import nn

from mmpeft.freeze import freeze
from mmpeft.inject import inject
from mmpeft.methods.registration import METHODS, options_of
from mmpeft.mm.weights.base import find_base
from mmpeft.registry import MODELS

# Whose backbone a scope uses where it has none of its own.
LENDERS = {
    'SwinTransformer': {'mmrotate': 'mmdet'},
    'VisionTransformer': {'mmdet': 'mmpretrain', 'mmrotate': 'mmpretrain'},
}
# What the wrapper can be told beside the method.
FLAGS = ('allow_random_base', 'eval_frozen', 'recompute_ffn', 'compile')
# The builders that say the method and the backbone in one name.
NAMED = {f'{method}{stock}': (method, stock) for method, stock in product(('Mona', 'SSF', 'CVPT'), LENDERS)}


def adapt_backbone(
    backbone: nn.Module,
    method: Mapping | Sequence[Mapping],
    allow_random_base: bool = False,
    eval_frozen: bool = False,
    recompute_ffn: bool = False,
    compile: bool = False,
) -> None:
    """Inject ``method`` into a backbone that mm has just built, freeze it, and ask for its base weights."""
    inject(backbone, method, recompute_ffn, compile)
    backbone.expect_base()
    backbone.find_base = find_base
    backbone.allow_random_base = allow_random_base
    backbone.eval_frozen = eval_frozen
    freeze(backbone)


@MODELS.register_module(name='AdaptedBackbone')
def build_adapted_backbone(
    backbone: dict,
    method: Mapping | Sequence[Mapping],
    allow_random_base: bool = False,
    eval_frozen: bool = False,
    recompute_ffn: bool = False,
    compile: bool = False,
    init_cfg: dict | None = None,
    pretrained: str | None = None,
) -> nn.Module:
    """Build ``backbone`` and adapt it.

    Args:
        backbone: Config of a stock backbone; its type is looked up in the default scope, as everywhere in mm.
        method: What to inject, as for ``mmpeft.inject``.
        allow_random_base: Train even if the base was never given weights.
        eval_frozen: Keep what is frozen in eval mode during training: dropout and drop path are off in every block
            in which no base parameter trains. Adapters train as ever.
        recompute_ffn: As for ``mmpeft.inject``.
        compile: As for ``mmpeft.inject``.
        init_cfg: Goes to the backbone, over an ``init_cfg`` of its own.
        pretrained: Goes to the backbone, as mmseg's segmentors set it.

    Returns:
        The stock backbone itself, adapted and frozen.

    Raises:
        ValueError: As ``mmpeft.inject``.
    """
    backbone = ConfigDict(backbone)
    backbone.update({key: ConfigDict(init_cfg) for key in ('init_cfg',) if init_cfg is not None})
    backbone.update({key: pretrained for key in ('pretrained',) if pretrained is not None})
    built = MMENGINE_MODELS.build(backbone)
    adapt_backbone(built, method, allow_random_base, eval_frozen, recompute_ffn, compile)
    return built


def wrap_backbone(model: ConfigDict, method: Mapping | Sequence[Mapping], **flags: bool) -> None:
    """Turn the backbone of a model config into an ``mmpeft.AdaptedBackbone`` around it, in place.

    Args:
        model: Config of a model.
        method: What to inject.
        flags: Of ``FLAGS``, for the wrapper.

    Raises:
        ValueError: The model has no backbone, or it is wrapped already.
    """
    if 'backbone' not in model:
        raise ValueError(f'The model {model.get("type")} has no backbone in its config; wrap its backbone by hand.')
    kind = model.backbone.get('type')
    if kind is build_adapted_backbone or str(kind).startswith('mmpeft.'):
        raise ValueError(f'The backbone is {kind} already; remove the adapter hook or the wrapper.')
    wrapped = dict(type='mmpeft.AdaptedBackbone', method=method, backbone=model.pop('backbone'))
    model.backbone = ConfigDict(wrapped, **{key: True for key, value in flags.items() if value})


def wrapper_form(name: str, config: Mapping) -> dict:
    """The ``AdaptedBackbone`` that a builder such as ``MonaSwinTransformer`` stands for in the default scope.

    Args:
        name: The builder.
        config: Its options: those of the stock backbone and those of the method.

    Raises:
        ValueError: No default scope is set.
    """
    method, stock = NAMED[name]
    scope = DefaultScope.get_current_instance()
    if scope is None:
        raise ValueError(
            f'mmpeft.{name} takes the {stock} of the default scope, and none is set: call '
            "mmengine.registry.init_default_scope('mmdet') first, or use mmpeft.AdaptedBackbone with a scoped type."
        )
    options = {key: config[key] for key in options_of(METHODS[method]) if key in config}
    outer = {key: config[key] for key in FLAGS if key in config}
    inner = {key: value for key, value in config.items() if key not in (*options, *outer)}
    owner = LENDERS[stock].get(scope.scope_name, scope.scope_name)
    return dict(method=dict(type=method, **options), backbone=dict(inner, type=f'{owner}.{stock}'), **outer)


def _build_named(name: str, /, **config) -> nn.Module:
    """Build the backbone that ``name`` stands for: a method in a stock backbone of the default scope.

    Args:
        name: Such as ``MonaSwinTransformer``.
        **config: Options of the stock backbone and of the method, side by side.
    """
    return build_adapted_backbone(**wrapper_form(name, config))


for _name in NAMED:
    MODELS.register_module(name=_name, module=partial(_build_named, _name))
