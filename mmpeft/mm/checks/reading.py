"""Read a config file, import the library that it is written for, and find its parts."""

import inspect
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from importlib import import_module
from io import StringIO
from typing import Any

from mmengine.config import Config
from mmengine.runner import Runner

from mmpeft.mm.checks.errors import UserError
from mmpeft.mm.checks.names import find_scope, has_classes, use_names
from mmpeft.shipped import config_file, similar_recipes

# Keys that Runner reads from the config although they are no argument of its own.
MORE_KEYS = {
    'activation_checkpointing',
    'compile',
    'custom_imports',
    'efficient_conv_bn_eval',
    'find_unused_parameters',
    'heldout',
    'model_wrapper_cfg',
    'runner_type',
    'sync_bn',
    'tta_model',
    'tta_pipeline',
}


def read_config(path: str, options: dict[str, Any] | None = None) -> Config:
    """The config file with the given keys overridden; where types are classes, as in pure Python, names stand for them.

    Args:
        path: A file, or the name of a recipe that comes with the package, such as ``mona_swin_coco.py``.
        options: Keys to override.

    Raises:
        UserError: The file is missing or does not parse, an option does not fit it, or its classes are of a library
            that is not installed.
    """
    file = config_file(path)
    if file is None:
        similar = similar_recipes(path)
        meant = f' Did you mean the recipe {" or ".join(similar)}?' if similar else ''
        raise UserError(f'No config file {path}.{meant}')
    try:
        cfg = Config.fromfile(file)
    except Exception as error:
        raise UserError(f'The config {path} does not parse: {_short(error)}') from error
    _forget_our_scope(cfg._cfg_dict)
    with _without_adverts():  # to look at a class is to import it
        in_python = has_classes(cfg)
    if in_python:
        cfg.default_scope = find_scope(cfg)
        register_library(cfg.default_scope)
        use_names(cfg)
    if options:
        _warn_of_unread(cfg, options)
        try:
            cfg.merge_from_dict(options)
        except Exception as error:
            raise UserError(f'--cfg-options do not fit {path}: {_short(error)}') from error
    if 'model' not in cfg:
        raise UserError(f'The config {path} describes no model; is it a part of another one?')
    return cfg


def register_library(scope: str | None, models_alone: bool = False) -> None:
    """Import the OpenMMLab library that a config is written for, so that its names resolve.

    Args:
        scope: The library.
        models_alone: Leave out its data sets, which need more packages than its models.

    Raises:
        UserError: The config names no scope, or one that is not installed.
    """
    if not scope:
        raise UserError("The config sets no default_scope; add one, such as default_scope = 'mmdet'.")
    for name in ('mmdet', 'mmrotate') if scope == 'mmrotate' else (scope,):
        try:
            with _without_adverts():
                if models_alone:
                    import_module(f'{name}.models')
                else:
                    import_module(f'{name}.utils').register_all_modules(init_default_scope=False)
        except ModuleNotFoundError as error:
            raise UserError(f'The config is written for {scope}, and {error.name} is not installed.') from error


def evaluators(cfg: Config, split: str) -> list[dict]:
    """The configs of the metrics of ``split``, of which there may be none, one or several."""
    metrics = cfg.get(f'{split}_evaluator') or []
    return [m for m in (metrics if isinstance(metrics, list | tuple) else [metrics]) if isinstance(m, dict)]


def leaves(key: str, dataset: Any) -> Iterator[tuple[str, dict]]:
    """The data sets inside wrappers such as RepeatDataset and ConcatDataset, with their keys."""
    if not isinstance(dataset, dict):
        return
    if 'dataset' in dataset:
        yield from leaves(f'{key}.dataset', dataset['dataset'])
    elif 'datasets' in dataset:
        for index, part in enumerate(dataset['datasets']):
            yield from leaves(f'{key}.datasets.{index}', part)
    else:
        yield key, dataset


def type_name(kind: Any) -> str:
    """The bare name of a type in a config, given as a name with or without a scope, or as the class itself."""
    return (kind if isinstance(kind, str) else getattr(kind, '__name__', str(kind))).rpartition('.')[2]


@contextmanager
def _without_adverts() -> Iterator[None]:
    """Drop the lines about OneDL, an optional service, that the libraries print when they are imported."""
    with redirect_stdout(StringIO()) as printed:
        yield
    print(*[line for line in printed.getvalue().splitlines(True) if 'OneDL' not in line], sep='', end='')


def _forget_our_scope(node: Any) -> None:
    """Drop the scope that mmengine gives to what is inherited by ``mmpeft::``: a recipe is written in its library's."""
    if isinstance(node, dict):
        if node.get('_scope_') == 'mmpeft':
            del node['_scope_']
        children = node.values()
    else:
        children = node if isinstance(node, list | tuple) else ()
    for child in children:
        _forget_our_scope(child)


def _short(error: Exception, most: int = 300) -> str:
    text = f'{type(error).__name__}: {error}'
    return text if len(text) <= most else f'{text[:most]} ...'


def _warn_of_unread(cfg: Config, options: dict[str, Any]) -> None:
    """Warn of keys that nothing reads: config files are evaluated before the options are merged into them."""
    read = {*inspect.signature(Runner.__init__).parameters} | MORE_KEYS
    for key in options:
        if key.partition('.')[0] not in read:
            name = key.rpartition('.')[2]
            used = [k for k in _keys(cfg.to_dict()) if k.endswith(f'.{name}') and k.partition('.')[0] in read]
            hint = f' Did you mean {" or ".join(used[:3])}?' if used else ''
            warnings.warn(f'--cfg-options {key} changes nothing: nothing reads this key.{hint}', stacklevel=3)


def _keys(node: Any, path: str = '') -> Iterator[str]:
    if isinstance(node, dict):
        for name, child in node.items():
            yield from _keys(child, f'{path}.{name}' if path else name)
    else:
        yield path
