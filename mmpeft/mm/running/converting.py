"""Turn a checkpoint of the authors of a method into a base and an adapter file, without losing a tensor unsaid."""

import argparse
import copy
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from mmengine.registry import MODELS
from torch import Tensor, nn

from mmpeft.adapter_file import PYTORCH, write_safetensors
from mmpeft.checkpoint import differences_of, save_adapters
from mmpeft.freeze import adapted_backbones, is_adapter
from mmpeft.hosts import Backbone
from mmpeft.layouts import CLASSIFIER_NORM, FRESH_SSF, HEAD, HEADS, SHARED, Layout, Move, find_layout
from mmpeft.methods.configs import full_options
from mmpeft.mm.checks import UserError
from mmpeft.mm.running.config import buildable_config
from mmpeft.mm.weights.checkpoints import download, read_checkpoint
from mmpeft.report import listed

WRAPPERS = ('state_dict', 'model')
AVERAGED = ('state_dict_ema', 'model_ema')
INDEX = 'relative_position_index'
NO_HEAD = 'the head of a classifier, for which the config has no place'
NO_MODEL = 'outside the backbone, and the config is of a backbone alone'


@dataclass
class Placed:
    """The tensors of a file under the names of the model, and those that are left out."""

    tensors: dict[str, Tensor] = field(default_factory=dict)
    dropped: list[Move] = field(default_factory=list)
    started: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Converted:
    """The two files, what they were made from, and what is not from there.

    ``backbone_only`` tells that the adapter file is of the backbone, because the source has nothing for the rest of
    the model. ``dropped`` gives for each reason the names of the tensors that were left out, and ``started`` names
    those of the model that no classifier has: output norms and SSF after them, which change nothing.
    """

    base: Path
    adapters: Path
    layout: str
    used: int
    backbone_only: bool
    dropped: Mapping[str, list[str]]
    started: tuple[str, ...]
    averaged_unused: bool

    def __str__(self) -> str:
        line = f'{self.used} tensors in {self.layout} layout became {self.base} and {self.adapters}.'
        if self.backbone_only:
            line += ' The adapter file is of the backbone alone: load it by mmpeft.load_adapters(model.backbone, ...).'
        for reason, names in self.dropped.items():
            line += f' Left out: {listed(names)}, {reason}.'
        if self.started:
            line += f' Set to change nothing, as no classifier has them: {listed(self.started)}.'
        if self.averaged_unused:
            line += ' The file holds averaged weights too; --ema takes those.'
        return line


def convert_checkpoint(
    config: str, checkpoint: str, out: str, *, ema: bool = False, cfg_options: Mapping[str, Any] | None = None
) -> Converted:
    """Convert a checkpoint in the layout of the authors of Mona, STAR-MMRotate, SSF or CVPT.

    Writes ``<out>_base.safetensors``, the frozen backbone with the names of mm behind ``backbone.``, and
    ``<out>_adapters.safetensors``, the adapter file on that base. Every tensor is used or named as left out, and every
    tensor of the model filled. What no file holds comes from the config: heads, windows, eps of norms, dropout.

    A classifier's file has no neck and no heads for dense prediction: the adapter file is then of the backbone alone.
    SSF's ConvNeXt is refused, as it scales its last map before the norm, where mmpeft has no site.

    Args:
        config: A config whose backbone is an ``mmpeft.AdaptedBackbone`` with the method, or with its adapter hook.
        checkpoint: File or URL; it is read as data.
        out: Where to write: the beginning of both paths, or a folder.
        ema: Take the averaged weights of a file that holds both.
        cfg_options: Keys of the config to override.

    Raises:
        UserError: The file is of no known layout or not of this model, or a file to write exists.
    """
    paths = _free_paths(out, checkpoint)
    model = _build(config, cfg_options)
    state, meta, averaged = _read(checkpoint, ema)
    try:
        layout = find_layout(state)
    except ValueError as error:
        raise UserError(f'{checkpoint}: {error}') from error
    name, backbone = _only_backbone(model, config, layout)
    placed = _place(state, layout, backbone, f'{name}.' if name else '', model.state_dict())
    backbone_only = _check(placed, model, name, CLASSIFIER_NORM in _inner_names(state), checkpoint)
    _load(model, backbone, placed, checkpoint)
    base = {n: t for n, t in placed.tensors.items() if n.startswith(f'{name}.' if name else '') and not is_adapter(n)}
    save_adapters(backbone if backbone_only else model, paths[1], base=paths[0].name, dataset_meta=_task(meta))
    named = {'backbone.' + n.removeprefix(f'{name}.'): tensor for n, tensor in base.items()}
    write_safetensors(paths[0], named, PYTORCH)
    reasons: dict[str, list[str]] = {}
    for move in placed.dropped:
        reasons.setdefault(move.reason, []).append(move.source)
    used = len(state) - len(placed.dropped)
    return Converted(*paths, layout.name, used, backbone_only, reasons, tuple(placed.started), averaged and not ema)


def _free_paths(out: str, checkpoint: str) -> tuple[Path, Path]:
    path = Path(out).expanduser()
    if path.is_dir() or out.endswith('/'):
        path = path / Path(checkpoint).stem
    base, adapters = (path.with_name(f'{path.name}_{kind}.safetensors') for kind in ('base', 'adapters'))
    for file in (base, adapters):
        if file.exists():
            raise UserError(f'{file} exists; name another place, nothing is overwritten.')
    return base, adapters


def _build(config: str, options: Mapping[str, Any] | None) -> nn.Module:
    return MODELS.build(copy.deepcopy(buildable_config(config, options).model))


def _read(checkpoint: str, ema: bool) -> tuple[dict[str, Tensor], dict, bool]:
    """The tensors of a file without the prefix of parallel training, its notes, and whether it has averaged ones."""
    path = download(checkpoint) if '://' in checkpoint else checkpoint
    # timm keeps the arguments of its training script in the file, as a plain namespace.
    with torch.serialization.safe_globals([argparse.Namespace]):
        content = read_checkpoint(path)
    averaged = next((key for key in AVERAGED if isinstance(content.get(key), Mapping)), None)
    if ema and averaged is None:
        raise UserError(f'{checkpoint} holds no averaged weights: none of {", ".join(AVERAGED)} is in it.')
    keys = (averaged,) if ema else WRAPPERS
    state = next((content[key] for key in keys if isinstance(content.get(key), Mapping)), content)
    tensors = {str(name).removeprefix('module.'): tensor for name, tensor in state.items() if torch.is_tensor(tensor)}
    meta = content.get('meta')
    return tensors, dict(meta) if isinstance(meta, Mapping) else {}, averaged is not None


def _only_backbone(model: nn.Module, config: str, layout: Layout) -> tuple[str, Backbone]:
    """The adapted backbone of ``model`` and its name, if it carries the method of ``layout`` and can be of it."""
    found = list(adapted_backbones(model).items())
    if len(found) != 1:
        raise UserError(f'The config {config} has {len(found)} backbones with adapters, and a file is of one.')
    name, backbone = found[0]
    methods = [method['type'] for method in backbone.adapter_methods]
    if methods != [layout.method]:
        raise UserError(f'The file holds {layout.method} in {layout.name} layout, and {config} has {methods}.')
    options = full_options(backbone.adapter_methods[0])
    if options.get('share') and options.get('learn'):
        raise UserError('CVPT with share=True and learn=True learns offsets, which no file holds; set share=False.')
    if backbone.host not in layout.rules:
        hosts = ', '.join(host.__name__.removesuffix('Backbone') for host in layout.rules)
        raise UserError(f'{layout.name} layout is known for {hosts}, and the backbone is a {type(backbone).__name__}.')
    return name, backbone


def _is_prefixed(state: Mapping[str, Tensor]) -> bool:
    return any(name.startswith('backbone.') for name in state)


def _inner_names(state: Mapping[str, Tensor]) -> set[str]:
    return {name.removeprefix('backbone.') for name in state}


def _place(
    state: Mapping[str, Tensor], layout: Layout, backbone: Backbone, prefix: str, expected: Mapping[str, Tensor]
) -> Placed:
    """Give each tensor of ``state`` its name in the model, or the reason why it has none."""
    placed, prefixed = Placed(), _is_prefixed(state)
    for name, tensor in state.items():
        if not name.startswith('backbone.') if prefixed else name.startswith('head.'):
            moves = [_move_outside(name, tensor, prefix, expected)]
        else:
            moves = _moves(layout, backbone, name, tensor)
            moves = [replace(move, source=name, target=prefix + move.target) for move in moves]
        for move in moves:
            if move.reason and move.target not in expected:
                placed.dropped.append(move)
            elif move.target in placed.tensors:
                raise UserError(f'Two tensors of the file are {move.target} in mm; one of them is {name}.')
            else:
                placed.tensors[move.target] = move.tensor
    return placed


def _moves(layout: Layout, backbone: Backbone, name: str, tensor: Tensor) -> list[Move]:
    try:
        return layout.moves(backbone.host, name.removeprefix('backbone.'), tensor)
    except (RuntimeError, TypeError) as error:
        shape = tuple(tensor.shape)
        raise UserError(f'The file has {name} of shape {shape}, which {layout.name} code never has.') from error


def _move_outside(name: str, tensor: Tensor, prefix: str, expected: Mapping[str, Tensor]) -> Move:
    """Where a tensor of a neck or a head goes: it keeps its name, except that of timm's classifiers."""
    if not prefix:
        return Move(name, '', tensor, NO_MODEL)
    match = re.fullmatch(HEAD, name)
    names = [name, *(match.expand(head) for head in HEADS if match)]
    target = next((target for target in names if target in expected), name)
    return Move(name, target, tensor, NO_HEAD if name.startswith('head.') else '')


def _check(placed: Placed, model: nn.Module, name: str, is_classifier: bool, path: str) -> bool:
    """Refuse a file that is not of the whole model; whether it is of the backbone alone.

    Output norms that no classifier has are taken off what must be there and go to ``placed.started``.
    """
    backbone, prefix, expected = model.get_submodule(name), f'{name}.' if name else '', model.state_dict()
    outside = {n for n in expected if not n.startswith(prefix)}
    backbone_only = bool(outside) and not outside & placed.tensors.keys()
    lacking = expected.keys() - placed.tensors.keys() - (outside if backbone_only else set())
    lacking = sorted(n for n in lacking if not n.endswith(INDEX))
    if is_classifier:
        fresh = re.compile(f'{re.escape(prefix)}({backbone.fresh}|{FRESH_SSF})')
        placed.started = [n for n in lacking if fresh.fullmatch(n)]
        lacking = [n for n in lacking if not fresh.fullmatch(n)]
    wanted = {n: t for n, t in expected.items() if n in placed.tensors or n in lacking}
    differences = differences_of(placed.tensors, wanted)
    differences += [
        f'has another {n} than the model'
        for n, t in placed.tensors.items()
        if n.endswith(INDEX) and n in expected and not torch.equal(t, expected[n])
    ][:1]
    if differences:
        hint = _hint(backbone, {n.removeprefix(prefix) for n in placed.tensors.keys() - expected.keys()})
        raise UserError(f'{path} is of another model than the config: it {", and ".join(differences)}.{hint}')
    return backbone_only


def _hint(backbone: Backbone, names: set[str]) -> str:
    options = {o for pattern, o in backbone.bias_options.items() if any(re.fullmatch(pattern, n) for n in names)}
    return f' Set {", ".join(sorted(options))} to True in the backbone.' if options else ''


def _load(model: nn.Module, backbone: Backbone, placed: Placed, path: str) -> None:
    """Fill the model, and make sure that what was left out as shared is the same there."""
    model.load_state_dict(placed.tensors, strict=False)
    for name in placed.started:
        nn.init.constant_(model.get_parameter(name), float(name.endswith(('weight', 'scale'))))
    different = [m.source for m in placed.dropped if m.reason == SHARED and not _is_shared(m, model)]
    if different:
        raise UserError(
            f'{path} has a cross-attention of its own, not that of the self-attention: {listed(different)} differ. '
            'CVPT as mmpeft shares it would be another model; set share=False in the method to keep both.'
        )


def _is_shared(move: Move, model: nn.Module) -> bool:
    """Whether a weight of a cross-attention is that of the self-attention of its block."""
    block, _, leaf = move.target.partition('.adapters.')
    _, projection, kind = leaf.split('.')
    if block not in dict(model.named_modules()):
        return False
    own = getattr(model.get_submodule(block).attention_weights(), f'{projection}_{kind}')
    return own is not None and torch.equal(move.tensor.to(own.dtype), own)


def _task(meta: Mapping[str, Any]) -> dict[str, Any]:
    """The classes and the palette that a file names, in the way of mm's present or former libraries."""
    if isinstance(meta.get('dataset_meta'), Mapping):
        return dict(meta['dataset_meta'])
    former = dict(classes=meta.get('CLASSES'), palette=meta.get('PALETTE'))
    return {key: value for key, value in former.items() if isinstance(value, list | tuple)}
