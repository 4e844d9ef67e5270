"""What adapted backbones cost against full fine-tuning, the frozen limit and the methods as published."""

import ast
import copy
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from mmengine.registry import MODELS, init_default_scope
from mmengine.utils import track_iter_progress
from torch import nn

from mmpeft.freeze import freeze, is_adapter
from mmpeft.inject import inject
from mmpeft.measuring import Setting, Variant, largest_operations, measure
from mmpeft.merge import merge
from mmpeft.methods.configs import parse
from mmpeft.mm.backbone import NAMED, wrapper_form
from mmpeft.mm.checks import UserError, check_free, read_config, register_library
from mmpeft.mm.reports.tables import markdown, write_csv
from mmpeft.plain import use_plain_forms


def _swin(embed_dims: int, blocks: int, heads: int) -> dict:
    sizes = dict(embed_dims=embed_dims, depths=(2, 2, blocks, 2), num_heads=[heads * 2**i for i in range(4)])
    return dict(type='mmdet.SwinTransformer', drop_path_rate=0.2, **sizes)


def _vit(embed_dims: int, layers: int, heads: int) -> dict:
    sizes = dict(embed_dims=embed_dims, num_layers=layers, num_heads=heads)
    outputs = [layers * i // 4 - 1 for i in (1, 2, 3, 4)]
    return dict(type='mmseg.VisionTransformer', patch_bias=True, out_indices=outputs, **sizes)


BACKBONES = {
    'swin-t': _swin(96, 6, 3),
    'swin-s': _swin(96, 18, 3),
    'swin-b': _swin(128, 18, 4),
    'swin-l': _swin(192, 18, 6),
    'vit-b': _vit(768, 12, 12),
    'vit-l': _vit(1024, 24, 16),
}
HEADS = dict(
    name='model',
    forward='forward, ms',
    step='step, ms',
    step_of_full='step / full',
    step_of_plain='step / plain',
    saved='saved, MB',
    saved_of_full='saved / full',
    peak='peak, MB',
    operations='operations',
    operations_of_full='operations / full',
    waits='host waits',
    busy='GPU busy, ms',
    busy_of_full='busy / full',
    launches='launches',
    adapters='adapters, ms',
    adapters_of_plain='adapters / plain',
    inference='inference, ms',
    inference_of_stock='inference / stock',
)

OPERATION_HEADS = dict(name='model', operation='operation', calls='calls', time='ms', share='share')


def benchmark(
    backbone: str,
    methods: Sequence[str],
    setting: Setting,
    out: Path | None = None,
    recompute_ffn: bool = False,
    compile: bool = False,
    profile: bool = False,
) -> str:
    """Measure ``methods`` in ``backbone``; the table, which with ``out`` is written as CSV and picture, too.

    Args:
        backbone: A name of ``BACKBONES``, or a config file, of which the stock backbone is taken. Weights are random.
        methods: Method names, with options as in ``'CVPT:num_prompts=200,dropout=0'``.
        setting: Input and device.
        out: A folder to be made.
        recompute_ffn: Measure each method with that option, too.
        compile: And with that one.
        profile: Append a table of the operations that take most of a step of each model.

    Raises:
        UserError: A backbone, method or option is unknown, or the folder holds files already.
    """
    check_free(out)
    configs = {text: read_method(text) for text in methods}
    stock = build(backbone, setting.size)
    try:
        models = list(variants(stock, configs, recompute_ffn, compile))
    except ValueError as error:
        raise UserError(str(error)) from error
    rows = measure(models, setting, partial(track_iter_progress, file=sys.stderr))
    text = markdown(rows, HEADS)
    operations = largest_operations(models, setting) if profile else []
    if operations:
        text += f'\n\n{markdown(operations, OPERATION_HEADS)}'
    if out is not None:
        # Here, so that a table needs no matplotlib.
        from mmpeft.mm.reports.report_plots import draw_ratios

        out.mkdir(parents=True, exist_ok=True)
        write_csv(rows, out / 'benchmark.csv')
        if operations:
            write_csv(operations, out / 'operations.csv')
        draw_ratios(rows, out / 'benchmark.png')
    return text


def read_method(text: str) -> dict:
    """The config of a method written as ``NAME`` or ``NAME:KEY=VALUE,KEY=VALUE``.

    Raises:
        UserError: It does not read, or names no known method or option.
    """
    name, _, options = text.partition(':')
    try:
        call = ast.parse(f'dict({options})', mode='eval').body
        values = {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords}
    except (SyntaxError, ValueError):
        call = None
    if call is None or call.args:
        raise UserError(f'{text!r} does not read as NAME:KEY=VALUE,...; values are Python literals.')
    try:
        return parse(dict(values, type=name))[0]
    except ValueError as error:
        raise UserError(str(error)) from error


def build(backbone: str, size: tuple[int, int]) -> nn.Module:
    """A stock backbone with random weights: one of ``BACKBONES``, or that of a config file.

    Raises:
        UserError: There is no such name and no such file, or the file does not parse.
    """
    if backbone in BACKBONES:
        config = BACKBONES[backbone]
        scope = config['type'].partition('.')[0]
        sizes = dict(img_size=size) if scope == 'mmseg' else {}
    elif Path(backbone).suffix == '.py':
        cfg = read_config(backbone)
        config, scope, sizes = cfg.model.backbone, cfg.get('default_scope'), {}
    else:
        raise UserError(f'No backbone {backbone!r}; there are {", ".join(BACKBONES)}, and config files.')
    register_library(scope, models_alone=True)
    init_default_scope(scope)
    name = config['type'].removeprefix('mmpeft.')
    config = wrapper_form(name, config) if name in NAMED else config
    config = dict(config.get('backbone', config), **sizes)
    return MODELS.build({key: value for key, value in config.items() if key not in ('init_cfg', 'pretrained')})


def variants(
    stock: nn.Module, methods: dict[str, dict], recompute_ffn: bool = False, compile: bool = False
) -> Iterator[Variant]:
    """The models to compare: full fine-tuning, the frozen limit, and each method as published, as here, and merged.

    In the frozen limit nothing trains and gradients flow through every block. All but the first share one base.

    Args:
        stock: A stock backbone; it is frozen.
        methods: Configs of methods by their names.
        recompute_ffn: Yield each method with that option, too.
        compile: And with that one.

    Raises:
        ValueError: As ``mmpeft.inject``.
    """
    yield Variant('full', copy.deepcopy(stock))
    stock.requires_grad_(False)
    limit = _twin(stock)
    limit.patch_embed.register_forward_hook(lambda _, args, out: (out[0].requires_grad_(), *out[1:]))
    yield Variant('frozen', limit, infers=False)
    for name, config in methods.items():
        plain, ours = adapted(stock, config), adapted(stock, config)
        has_plain = use_plain_forms(plain)
        if has_plain:
            yield Variant(f'{name}, plain', plain)
        yield Variant(name, ours, plain=f'{name}, plain' if has_plain else None)
        if recompute_ffn:
            yield Variant(f'{name}, recompute_ffn', adapted(stock, config, recompute_ffn=True), infers=False)
        if compile:
            yield Variant(f'{name}, compiled', adapted(stock, config, compile=True), compiled=True)
        merged = copy.deepcopy(ours)
        if merge(merged).folded and isinstance(merged, type(stock)):
            yield Variant(f'{name}, merged', merged, trains=False)


def _twin(stock: nn.Module) -> nn.Module:
    """A copy that holds the same parameters."""
    return copy.deepcopy(stock, {id(parameter): parameter for parameter in stock.parameters()})


def adapted(stock: nn.Module, config: dict, **flags: bool) -> nn.Module:
    """A copy of a frozen ``stock`` backbone with a method; it owns what trains and shares the rest."""
    twin = _twin(stock)
    inject(twin, config, **flags)
    freeze(twin)
    for name, parameter in list(twin.named_parameters()):
        if parameter.requires_grad and not is_adapter(name):
            owner, _, leaf = name.rpartition('.')
            setattr(twin.get_submodule(owner), leaf, nn.Parameter(parameter.detach().clone()))
    stock.requires_grad_(False)
    return twin
