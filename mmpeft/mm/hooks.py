"""Registered hooks: the report at the start of training, and adaptation in one line of an untouched config."""

import logging
from collections.abc import Mapping, Sequence
from functools import partial

from mmengine.config import Config, ConfigDict
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from torch import Tensor, nn

from mmpeft.freeze import adapted_backbones, count_parameters, is_adapter
from mmpeft.mm.backbone import FLAGS, adapt_backbone, wrap_backbone
from mmpeft.mm.runners import bare_model, check_strategy, is_sharded, optim_wrappers, whole_model
from mmpeft.mm.together import in_all
from mmpeft.mm.weights.loading import adapter_file_in
from mmpeft.registry import HOOKS
from mmpeft.report import report

# What an adapter hook does beside adapting the model, as hooks of their own.
COMPANIONS = ('mmpeft.AdapterReportHook', 'mmpeft.AdapterCheckpointHook')
CONSTRUCTOR = 'mmpeft.AdapterOptimWrapperConstructor'


@HOOKS.register_module()
class AdapterReportHook(Hook):
    """Print what was inserted and what trains, and check that it does.

    Before training: the optimizer must hold every trainable parameter, at a learning rate above zero. At the first
    update: every trainable parameter must have got a gradient; for one of the backbone its lack is an error, for
    another a warning, because some heads leave a branch out in some iterations. An adapter file that is loaded must
    be of the whole model; where training starts from one, of the backbone alone: necks and heads that differ start
    anew, which is told. Under FSDP gradients are not checked.

    Raises:
        RuntimeError: Before training, under a strategy that it does not work with.
    """

    priority = 'NORMAL'

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        file = adapter_file_in(checkpoint)
        if file is None:
            return
        if is_sharded(runner):
            raise RuntimeError(
                f'FSDPStrategy cannot start from the adapter file {file.path}: it loads checkpoints alone. Load the '
                '.pth file beside it, or use DDPStrategy.'
            )
        model = bare_model(runner)
        if runner._resume or not isinstance(runner.optim_wrapper, OptimWrapper):
            file.check_model(model)
            return
        anew = ', and '.join(file.check_start(model))
        if anew:
            print_log(
                f'The adapters start from {file.path}; necks and heads that differ start anew: it {anew}.', 'current'
            )

    def before_train(self, runner: Runner) -> None:
        check_strategy(runner, self)
        model = whole_model(runner) if is_sharded(runner) else bare_model(runner)
        for name, backbone in adapted_backbones(model).items():
            counts = count_parameters(model)
            print_log(f'Adapters in {name or "the model"}:\n{report(backbone)}\nWhole model: {counts}.', 'current')
        model = bare_model(runner)
        trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self._check_optimizer(runner, trainable)
        self._without_gradient = set(trainable)
        self._handles = []
        if is_sharded(runner):
            print_log('FSDP shards the gradients: whether every parameter gets one is not checked.', 'current')
            return
        self._handles = [p.register_hook(partial(self._take_note, name)) for name, p in trainable.items()]

    def _take_note(self, name: str, gradient: Tensor | None) -> None:
        if gradient is not None:  # as of one that is computed with others, of which some get a gradient
            self._without_gradient.discard(name)

    def _check_optimizer(self, runner: Runner, trainable: dict[str, nn.Parameter]) -> None:
        groups = [group for wrapper in optim_wrappers(runner) for group in wrapper.optimizer.param_groups]
        held = {id(p): group for group in groups for p in group['params']}
        absent = [name for name, p in trainable.items() if id(p) not in held]
        if absent:
            raise RuntimeError(f'The optimizer does not hold {len(absent)} trainable parameters: {_listed(absent)}.')
        factors = {name: held[id(p)].get('lr_mult', 1.0) for name, p in trainable.items() if is_adapter(name)}
        slowed = [name for name, factor in factors.items() if factor != 1]
        advice = f"Set optim_wrapper.constructor='{CONSTRUCTOR}' to give them their method's."
        if any(factors[name] == 0 for name in slowed):
            raise RuntimeError(f'paramwise_cfg sets the learning rate of adapters to 0: {_listed(slowed)}. {advice}')
        if slowed:
            print_log(
                f'paramwise_cfg multiplies the learning rate of {len(slowed)} adapter parameters by '
                f'{factors[slowed[0]]}, for example {slowed[0]}. {advice}',
                'current',
                level=logging.WARNING,
            )

    def after_train_iter(self, runner: Runner, *args, **kwargs) -> None:
        if not self._handles or not all(wrapper.should_update() for wrapper in optim_wrappers(runner)):
            return
        for handle in self._handles:
            handle.remove()
        self._handles = []
        in_all(lambda: self._check_gradients(bare_model(runner)))

    def _check_gradients(self, model: nn.Module) -> None:
        owners = tuple(f'{name}.' if name else '' for name in adapted_backbones(model))
        names = sorted(self._without_gradient)
        inside = [name for name in names if name.startswith(owners)]
        if inside:
            raise RuntimeError(
                f'{len(inside)} trainable parameters of the backbone got no gradient: {_listed(inside)}.'
            )
        if names:
            print_log(
                f'{len(names)} parameters got no gradient yet: {_listed(names)}.', 'current', level=logging.WARNING
            )


def _listed(names: Sequence[str], most: int = 8) -> str:
    return ', '.join(names[:most]) + (f' and {len(names) - most} more' if len(names) > most else '')


@HOOKS.register_module()
class AdapterHook(AdapterReportHook):
    """Adapt the backbone of a config that knows nothing of adapters.

    Under ``tools/train.py`` and ``tools/test.py`` of mmpeft this becomes an ``mmpeft.AdaptedBackbone`` before the
    model is built. In a stock Runner it happens in ``before_run``, ahead of every other hook: the model is unwrapped,
    adapted, frozen and wrapped again, and what was built for the old model (optimizer wrapper, scaled learning rate,
    schedulers) is built anew. The Runner's config is rewritten and dumped again, so that it rebuilds the adapted model
    wherever it is read; both ways train to the weights that this config trains to, bit for bit. A config that names no
    constructor for its optimizer gets ``AdapterOptimWrapperConstructor``. The report of ``AdapterReportHook`` and the
    adapter files of ``AdapterCheckpointHook`` are included.

    Args:
        method: What to inject, as for ``mmpeft.inject``.
        allow_random_base: Train even if the base was never given weights.
        eval_frozen: Keep what is frozen in eval mode during training, as for ``mmpeft.AdaptedBackbone``.
        recompute_ffn: As for ``mmpeft.inject``.
        compile: As for ``mmpeft.inject``.

    Raises:
        RuntimeError: The Runner is a FlexibleRunner, has no config, or was handed an optimizer that is built.
    """

    priority = 'HIGHEST'

    def __init__(
        self,
        method: Mapping | Sequence[Mapping],
        allow_random_base: bool = False,
        eval_frozen: bool = False,
        recompute_ffn: bool = False,
        compile: bool = False,
    ) -> None:
        self.method = method
        values = allow_random_base, eval_frozen, recompute_ffn, compile
        self.flags = dict(zip(FLAGS, values, strict=True))

    def rewrite(self, cfg: Config) -> None:
        """Give ``cfg`` the wrapper form: an adapted backbone, a constructor, and the hooks that this one stands for."""
        wrap_backbone(cfg.model, self.method, **self.flags)
        name_constructor(cfg)
        position = adapter_hooks_in(cfg)[0]
        cfg.custom_hooks[position : position + 1] = [ConfigDict(type=name) for name in COMPANIONS]

    def before_run(self, runner: Runner) -> None:
        model = bare_model(runner)
        if adapted_backbones(model):
            return
        training = isinstance(runner.optim_wrapper, OptimWrapper)
        self._check(runner, model, training)
        adapt_backbone(model.backbone, self.method, **self.flags)
        if is_model_wrapper(runner.model):
            runner.model = runner.wrap_model(runner.cfg.get('model_wrapper_cfg'), runner.model.module)
        self.rewrite(runner.cfg)
        if training:
            self._rebuild_optimizer(runner)
            runner.register_hook(dict(type='mmpeft.AdapterCheckpointHook'))
        runner.dump_config()

    def _check(self, runner: Runner, model: nn.Module, training: bool) -> None:
        name = type(self).__name__
        wrapper = "Use model.backbone=dict(type='mmpeft.AdaptedBackbone', method=..., backbone=...) instead."
        if not isinstance(runner, Runner):
            raise RuntimeError(f'{name} works with mmengine.runner.Runner, not {type(runner).__name__}. {wrapper}')
        if 'model' not in runner.cfg:
            raise RuntimeError(f'{name} needs a Runner with a config to rebuild the optimizer from. {wrapper}')
        if not hasattr(model, 'backbone'):
            raise RuntimeError(f'{name} found no .backbone in {type(model).__name__}. {wrapper}')
        if training and not isinstance(runner.cfg.get('optim_wrapper'), dict):
            raise RuntimeError(f'{name} cannot rebuild an optimizer that was built outside the config. {wrapper}')

    def _rebuild_optimizer(self, runner: Runner) -> None:
        """As Runner.train does it: optimizer wrapper, then the scaled learning rate, then the schedulers."""
        cfg = runner.cfg
        runner.optim_wrapper = runner.build_optim_wrapper(cfg.optim_wrapper)
        runner.param_schedulers = cfg.get('param_scheduler')
        runner.scale_lr(runner.optim_wrapper, runner.auto_scale_lr)
        if runner.param_schedulers is not None:
            runner.param_schedulers = runner.build_param_scheduler(runner.param_schedulers)


class _MethodHook(AdapterHook):
    """An ``AdapterHook`` for the method of its name, whose options are arguments of the hook itself."""

    def __init__(self, **options) -> None:
        flags = {key: options.pop(key) for key in FLAGS if key in options}
        super().__init__(dict(type=type(self).__name__.removesuffix('Hook'), **options), **flags)


@HOOKS.register_module()
class MonaHook(_MethodHook):
    """``AdapterHook(method=dict(type='Mona', ...))``."""


@HOOKS.register_module()
class SSFHook(_MethodHook):
    """``AdapterHook(method=dict(type='SSF', ...))``."""


@HOOKS.register_module()
class CVPTHook(_MethodHook):
    """``AdapterHook(method=dict(type='CVPT', ...))``."""


def name_constructor(cfg: Config) -> None:
    """Let the optimizer of ``cfg`` follow the methods' own rules, unless it names a constructor, in place."""
    wrapper = cfg.get('optim_wrapper')
    if isinstance(wrapper, dict) and 'optimizer' in wrapper:
        wrapper.setdefault('constructor', CONSTRUCTOR)


def adapter_hooks_in(cfg: Config) -> list[int]:
    """The positions of adapter hooks in ``cfg.custom_hooks``.

    Raises:
        ValueError: There is more than one.
    """
    hooks = cfg.get('custom_hooks') or []
    positions = [i for i, hook in enumerate(hooks) if _is_adapter_hook(hook.get('type'))]
    if len(positions) > 1:
        names = ', '.join(str(hooks[i]['type']) for i in positions)
        raise ValueError(f'A config takes one adapter hook, got {names}; list the methods in one mmpeft.AdapterHook.')
    return positions


def _is_adapter_hook(hook_type: str | type) -> bool:
    if isinstance(hook_type, str):
        scope, _, name = hook_type.rpartition('.')
        hook_type = HOOKS.get(name) if scope == 'mmpeft' else None
    return isinstance(hook_type, type) and issubclass(hook_type, AdapterHook)
