"""Banks of whole models: tasks of mmdet, mmseg and mmrotate on one base, listed in a YAML file."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from mmengine.config import Config, ConfigDict
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import CheckpointLoader
from torch import nn

from mmpeft.bank import AdapterBank
from mmpeft.checkpoint import AdapterFile, missing_base
from mmpeft.merge import merge
from mmpeft.mm.checks import UserError, read_config, register_library
from mmpeft.mm.running.config import inject_at_build, use_wrapper_form
from mmpeft.mm.weights.base import find_base
from mmpeft.mm.weights.checkpoints import check_file, checkpoints_as_data
from mmpeft.mm.weights.loading import adapter_file_in

LAYOUT = 'tasks: {NAME: {config: FILE, file: FILE}, ...}, and base: FILE if neither configs nor files name it'


def load_bank(path: str | Path, names: Sequence[str] | None = None) -> AdapterBank:
    """A bank of the tasks in a YAML file, whose paths are relative to its folder.

    Args:
        path: The file: ``tasks``, for each name a ``config`` and an adapter ``file``, and if need be the checkpoint of
            the ``base``, which otherwise is where the config of the first task or its file says.
        names: The tasks to load; by default all.

    Returns:
        The bank. Each model has its config as ``cfg`` and its classes and colours in ``dataset_meta``.

    Raises:
        UserError: The YAML file, a config or a file cannot be used.
        AdapterFileError: A file is damaged, or of another model or base.
    """
    base, entries = _read(Path(path))
    unknown = [name for name in names or () if name not in entries]
    if unknown:
        raise UserError(f'{path} has no task {unknown[0]!r}; it has {", ".join(entries)}.')
    bank = None
    for name in names or entries:
        cfg = task_config(entries[name]['config'])
        file, meta = _read_file(entries[name]['file'], cfg)
        bank = bank or AdapterBank(build_base(cfg, file, base))
        add_task(bank, name, cfg, file, meta)
    return bank


def build_base(cfg: Config, file: AdapterFile, place: str | None = None) -> nn.Module:
    """The stock backbone of a config with the weights that the task of ``file`` was trained on.

    Args:
        cfg: A config whose backbone is an ``mmpeft.AdaptedBackbone``.
        file: The adapter file of the task.
        place: The checkpoint of the base; by default it is looked for where the config or the file says.

    Raises:
        BaseNotFoundError: It is nowhere.
    """
    config = copy.deepcopy(cfg.model.backbone)
    config.method = dict(type='Frozen')
    if place is not None:
        config.backbone.init_cfg = ConfigDict(config.backbone.get('init_cfg') or dict(type='Pretrained'))
        config.backbone.init_cfg.checkpoint = place
    with scope_of(cfg):
        backbone = MODELS.build(config)
        find_base(backbone, file)
    if missing_base(backbone):
        raise UserError(f'The base of {file.path} was not found; name its checkpoint as base: in the YAML file.')
    merge(backbone)
    return backbone


def add_task(bank: AdapterBank, name: str, cfg: Config, file: AdapterFile, dataset_meta: dict) -> nn.Module:
    """Add the model of a config to a bank.

    Raises:
        AdapterFileError: The file is of another model or base.
    """
    with scope_of(cfg):
        model = MODELS.build(copy.deepcopy(cfg.model))
    bank.add(name, file, model)
    model.cfg, model.dataset_meta = cfg, dataset_meta
    return model


@contextmanager
def scope_of(cfg: Config) -> Iterator[None]:
    """Resolve names as the library of a config does, whatever the default scope is."""
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        yield


def task_config(path: str) -> Config:
    """The config of a task, with its adapters as an ``mmpeft.AdaptedBackbone``; its library is imported.

    Raises:
        UserError: It cannot be read or has no adapters.
    """
    cfg = read_config(path)
    register_library(cfg.get('default_scope'))
    with scope_of(cfg):
        inject_at_build(cfg)
        use_wrapper_form(cfg, path)
    return cfg


def _read_file(place: str, cfg: Config) -> tuple[AdapterFile, dict]:
    """An adapter file, and the classes and colours of its task."""
    if '://' not in place:
        check_file(place)
    with checkpoints_as_data(cfg):
        loaded = CheckpointLoader.load_checkpoint(place, map_location='cpu')
    file = adapter_file_in(loaded)
    if file is None:
        raise UserError(f'{place} is no adapter file, and a bank takes no other: it has to know the base of a task.')
    return file, loaded['meta'].get('dataset_meta', {})


def _read(path: Path) -> tuple[str | None, dict[str, dict[str, str]]]:
    if not path.is_file():
        raise UserError(f'No file {path}.')
    try:
        content = yaml.safe_load(path.read_text(encoding='utf-8'))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f'{path} is no YAML: {error}') from error
    if not _is_bank(content):
        raise UserError(f'{path} describes no bank; it has to read {LAYOUT}.')
    base = content.get('base')
    tasks = {
        str(name): {key: _from(path.parent, place) for key, place in entry.items()}
        for name, entry in content['tasks'].items()
    }
    return base and _from(path.parent, base), tasks


def _is_bank(content: Any) -> bool:
    if not isinstance(content, dict) or not {'tasks'} <= content.keys() <= {'base', 'tasks'}:
        return False
    tasks, base = content['tasks'], content.get('base', '')
    return isinstance(base, str) and isinstance(tasks, dict) and bool(tasks) and all(map(_is_entry, tasks.values()))


def _is_entry(entry: Any) -> bool:
    return (
        isinstance(entry, dict)
        and entry.keys() == {'config', 'file'}
        and all(isinstance(place, str) for place in entry.values())
    )


def _from(folder: Path, place: str) -> str:
    return place if '://' in place else str(folder / Path(place).expanduser())
