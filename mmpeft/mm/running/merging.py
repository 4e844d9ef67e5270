"""Merge a checkpoint: fold its adapters into the base, and write a config of the stock model beside it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from torch import Tensor

from mmpeft.files import write_atomically
from mmpeft.freeze import adapted_backbones
from mmpeft.merge import MergeReport, merge
from mmpeft.mm.checks import UserError
from mmpeft.mm.running.config import buildable_config, use_wrapper_form
from mmpeft.mm.running.trained import load_trained


@dataclass(frozen=True)
class Merged:
    """A merged checkpoint and its config.

    ``scope`` is the library that they are for; ``still_ours`` are the keys of the config that name something of mmpeft
    beside the model.
    """

    checkpoint: Path
    config: Path
    scope: str
    report: MergeReport
    still_ours: tuple[str, ...]

    def __str__(self) -> str:
        folded, kept, options = (len(self.report.folded), self.report.kept, self.report.settings)
        files = f'{self.checkpoint} and {self.config}'
        if kept:
            line = f'{folded} adapters were folded, {len(kept)} stay because no layer can take them: {kept[0]}'
            line += ' and the like' if len(kept) > 1 else ''
            line += f'. {files} load where mmpeft is installed, not in {self.scope} alone.'
        else:
            line = f'{folded} adapters were folded, none stays: {files} are a stock model, which {self.scope} loads.'
        if options:
            settings = ', '.join(f'{key}={value!r}' for key, value in options.items())
            line += f' The config sets {settings}, because the shifts need biases.'
        if self.still_ours and not kept:
            line += f' It still names mmpeft at {", ".join(self.still_ours)}.'
        return line


def merge_checkpoint(config: str, checkpoint: str, out: str, *, cfg_options: Mapping[str, Any] | None = None) -> Merged:
    """Merge the adapters of ``checkpoint`` into its weights.

    Writes ``out`` with the weights and, beside it and with the ending ``.py``, the config that they belong to. Where
    all adapters fold, both are those of a stock model. Otherwise the config keeps the methods that stay.

    Args:
        config: The config that the checkpoint was trained with.
        checkpoint: A file or URL with the weights of the whole adapted model, or an adapter file, whose base is looked
            for where the config or the file says.
        out: The ``.pth`` file to write.
        cfg_options: Keys of the config to override.

    Raises:
        UserError: The config has no adapters, the checkpoint is not of its model, or a file to write exists.
    """
    paths = _free_paths(out)
    cfg = buildable_config(config, cfg_options)
    use_wrapper_form(cfg, config)
    model, loaded = load_trained(cfg, checkpoint)
    backbone = next(iter(adapted_backbones(model).values()))
    report = merge(model)
    _rewrite(cfg, backbone.adapter_methods if report.kept else (), report.settings)
    text = cfg.pretty_text
    state = _fitted(model.state_dict(), text, report.options)
    meta = {**loaded.get('meta', {}), 'cfg': text}
    write_atomically(paths[0], lambda file: torch.save(dict(meta=meta, state_dict=state), file))
    write_atomically(paths[1], lambda file: file.write(text.encode()))
    return Merged(*paths, cfg.default_scope, report, tuple(_still_ours(cfg)))


def _free_paths(out: str) -> tuple[Path, Path]:
    path = Path(out).expanduser()
    if path.suffix != '.pth':
        raise UserError(f'The merged checkpoint is a .pth file, got {out}.')
    for file in (path, path.with_suffix('.py')):
        if file.exists():
            raise UserError(f'{file} exists; name another place, nothing is overwritten.')
    return path, path.with_suffix('.py')


def _rewrite(cfg: Config, methods: tuple[dict, ...], options: Mapping[str, Any]) -> None:
    """Give ``cfg`` a backbone with ``methods`` alone, or the stock backbone, whose weights come from the checkpoint."""
    wrapper = cfg.model.backbone
    for part, key in ((wrapper, 'init_cfg'), (wrapper, 'pretrained'), (cfg.model, 'pretrained')):
        part.pop(key, None)
    stock = wrapper.backbone
    for key in ('init_cfg', 'checkpoint_path'):
        stock.pop(key, None)
    if stock.pop('pretrained', None) is True:  # which timm would fetch
        stock.pretrained = False
    stock.update(options)
    if methods:
        wrapper.method = list(methods)
        return
    cfg.model.backbone = stock
    hooks = [hook for hook in cfg.get('custom_hooks') or [] if not _is_ours(hook.get('type'))]
    cfg.pop('custom_hooks', None)
    if hooks:
        cfg.custom_hooks = hooks
    checkpoint = (cfg.get('default_hooks') or {}).get('checkpoint') or {}
    if checkpoint.get('type') == 'mmpeft.CheckpointHook':
        checkpoint.type = 'CheckpointHook'
    if _is_ours((cfg.get('optim_wrapper') or {}).get('constructor')):
        cfg.optim_wrapper.pop('constructor')
    _drop_imports(cfg)


def _drop_imports(cfg: Config) -> None:
    names = (cfg.get('custom_imports') or {}).get('imports') or []
    names = [names] if isinstance(names, str) else names
    others = [name for name in names if name != 'mmpeft' and not _is_ours(name)]
    if others:
        cfg.custom_imports.imports = others
    elif names:
        cfg.pop('custom_imports')


def _is_ours(name: Any) -> bool:
    """Whether ``name``, of a registered type or the type itself, is of mmpeft."""
    return (name if isinstance(name, str) else f'{getattr(name, "__module__", "")}.').startswith('mmpeft.')


def _still_ours(node: Any, path: str = '') -> Iterator[str]:
    """The dotted keys of a config under which something of mmpeft is named."""
    if isinstance(node, dict | Config):
        for name, child in node.items():
            yield from _still_ours(child, f'{path}.{name}' if path else str(name))
    elif isinstance(node, list | tuple):
        for index, child in enumerate(node):
            yield from _still_ours(child, f'{path}.{index}')
    elif _is_ours(node):
        yield path


def _fitted(state: dict[str, Tensor], text: str, options: tuple[str, ...]) -> dict[str, Tensor]:
    """``state`` with exactly the keys of the model that the written config builds.

    An option gives biases to more layers than took a shift; the others are zero.
    """
    model = MODELS.build(Config.fromstring(text, '.py').model)
    expected = model.state_dict()
    for name in expected.keys() - state.keys():
        if options and name.endswith('bias'):
            state[name] = torch.zeros_like(expected[name])
    model.load_state_dict(state, strict=True)
    return state
