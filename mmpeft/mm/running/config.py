"""Edits of a config before a Runner is built from it."""

from importlib.util import find_spec
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.hooks import CheckpointHook
from mmengine.registry import init_default_scope

from mmpeft.mm.backbone import NAMED, wrapper_form
from mmpeft.mm.checks import UserError, read_config, register_library
from mmpeft.mm.hooks import COMPANIONS, adapter_hooks_in, name_constructor
from mmpeft.registry import HOOKS

# What writes a log for each package; `requirements/` has a file of the same name.
BACKENDS = dict(tensorboard='TensorboardVisBackend', wandb='WandbVisBackend')


def buildable_config(path: str, options: dict[str, Any] | None = None) -> Config:
    """The config file with the given keys overridden, from which models and data sets can be built at once.

    Raises:
        UserError: The file is missing or does not parse, an option does not fit it, or its library is not installed.
    """
    cfg = read_config(path, options)
    register_library(cfg.get('default_scope'))
    inject_at_build(cfg)
    init_default_scope(cfg.default_scope)
    return cfg


def inject_at_build(cfg: Config) -> None:
    """Turn the adapter hook of ``cfg`` into an ``mmpeft.AdaptedBackbone``, in place.

    What the hook does late in a stock Runner, with everything built twice, then happens while the model is built.

    Raises:
        ValueError: There is more than one adapter hook, or the backbone is wrapped already.
    """
    for position in adapter_hooks_in(cfg):
        hook = cfg.custom_hooks[position]
        HOOKS.build({key: value for key, value in hook.items() if key != 'priority'}).rewrite(cfg)


def use_wrapper_form(cfg: Config, path: str) -> None:
    """Turn a backbone of a name such as ``mmpeft.MonaSwinTransformer`` into the wrapper that it stands for, in place.

    Raises:
        UserError: The config, of the file ``path``, has no adapters.
    """
    backbone = cfg.model.get('backbone') or {}
    scope, _, name = str(backbone.get('type')).rpartition('.')
    if scope != 'mmpeft':
        raise UserError(f'The config {path} has no adapters: its backbone is {backbone.get("type")}. Nothing to merge.')
    if name in NAMED:
        cfg.model.backbone = ConfigDict(wrapper_form(name, backbone), type='mmpeft.AdaptedBackbone')


def add_companions(cfg: Config) -> None:
    """Give ``cfg`` the hooks that report and write adapter files, and a constructor, if its backbone is one of ours."""
    backbone = cfg.model.get('backbone') or {}
    if not str(backbone.get('type')).startswith('mmpeft.'):
        return
    name_constructor(cfg)
    for name in COMPANIONS:
        list_hook(cfg, name)


def use_exact_resume(cfg: Config) -> None:
    """Replace mmengine's CheckpointHook in ``cfg``, with its options, and list ``mmpeft.ExactResumeHook``."""
    cfg.default_hooks = cfg.get('default_hooks') or {}
    hook = cfg.default_hooks.setdefault('checkpoint', ConfigDict(type='CheckpointHook', interval=1))
    if hook is not None and hook.get('type') in ('CheckpointHook', 'mmengine.CheckpointHook', CheckpointHook):
        hook.type = 'mmpeft.CheckpointHook'
    list_hook(cfg, 'mmpeft.ExactResumeHook')


def log_to(cfg: Config, package: str) -> None:
    """Add the backend of ``package``, one of ``BACKENDS``, to the visualizer of ``cfg``, which keeps its own ones.

    Raises:
        UserError: The package is not installed.
    """
    if find_spec(package) is None:
        raise UserError(f"--{package} needs the package {package}: pip install 'mmpeft[{package}]'.")
    cfg.visualizer = cfg.get('visualizer') or ConfigDict(type='Visualizer', vis_backends=[dict(type='LocalVisBackend')])
    backends = cfg.visualizer.get('vis_backends') or []
    if all(backend.get('type') != BACKENDS[package] for backend in backends):
        cfg.visualizer.vis_backends = [*backends, dict(type=BACKENDS[package])]


def list_hook(cfg: Config, name: str) -> None:
    """List a hook without options in ``cfg``, unless it is listed already."""
    cfg.custom_hooks = cfg.get('custom_hooks') or []
    if not any(hook.get('type') == name for hook in cfg.custom_hooks):
        cfg.custom_hooks.append(ConfigDict(type=name))
