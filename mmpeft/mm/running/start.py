"""What a run shows before its first iteration: one screen, instead of the log, which is in its file."""

import logging
from collections.abc import Iterator

import torch
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmengine.runner import IterBasedTrainLoop, Runner

from mmpeft.freeze import count_parameters
from mmpeft.mm.checks import type_name
from mmpeft.mm.runners import bare_model, is_sharded


class CalmRunner(Runner):
    """A Runner whose log goes to its file, and warnings alone to the console, until ``StartHook`` lets it speak."""

    def build_logger(self, *args, **kwargs) -> MMLogger:
        logger = super().build_logger(*args, **kwargs)
        self.console_levels = {handler: handler.level for handler in _consoles(logger)}
        for handler, level in self.console_levels.items():
            handler.setLevel(max(level, logging.WARNING))
        return logger


class StartHook(Hook):
    """Say what trains, on what, for how long and where it is written; from then on the log is on the console, too."""

    priority = 'VERY_LOW'

    def before_train(self, runner: Runner) -> None:
        if runner.rank == 0:
            print('\n'.join(screen(runner)), flush=True)
        _speak(runner)

    def before_val(self, runner: Runner) -> None:
        _speak(runner)

    def before_test(self, runner: Runner) -> None:
        _speak(runner)


def screen(runner: Runner) -> Iterator[str]:
    """The lines about a training that is about to begin."""
    yield f'\nTraining {runner.experiment_name}'
    yield _line('model', _model(runner))
    yield _line('trains', _trained(runner))
    loader = runner.train_dataloader
    batch = loader.batch_size or getattr(loader.batch_sampler, 'batch_size', 'several')
    each = f' in each of {runner.world_size} processes' if runner.world_size > 1 else ''
    yield _line('data', f'{len(loader.dataset):,} images, {batch} at a time{each}')
    yield _line('length', _length(runner))
    device = next(bare_model(runner).parameters()).device
    cpu = f'the CPU, threads: {torch.get_num_threads()}'
    yield _line('runs on', torch.cuda.get_device_name(device) if device.type == 'cuda' else cpu)
    yield _line('writes to', runner.work_dir)
    yield _line('whole log', str(runner.logger.log_file))
    yield ''


def _model(runner: Runner) -> str:
    model = runner.cfg.get('model') or {}
    backbone = model.get('backbone') or {}
    methods = backbone.get('method') or []
    methods = methods if isinstance(methods, list | tuple) else [methods]
    inner = type_name((backbone.get('backbone') or backbone).get('type'))
    names = ' and '.join(method if isinstance(method, str) else str(method.get('type')) for method in methods)
    return f'{type_name(model.get("type"))}, {f"{names} in {inner}" if names else inner}'


def _trained(runner: Runner) -> str:
    model = bare_model(runner)
    if is_sharded(runner) or not hasattr(model, 'backbone'):
        return f'{count_parameters(model).trainable:,} parameters'
    backbone, whole = count_parameters(model.backbone), count_parameters(model)
    share = f'{backbone.trainable:,} of {backbone.total:,} parameters of the backbone ({backbone.percent_of_all:.2f} %)'
    return f'{share} and {whole.trainable - backbone.trainable:,} beside it'


def _length(runner: Runner) -> str:
    loop, iterations = runner.train_loop, f'{runner.max_iters:,} iterations'
    if isinstance(loop, IterBasedTrainLoop):
        unit, length = 'iterations', iterations
    else:
        unit, length = 'epochs', f'{runner.max_epochs} epochs, {iterations}'
    if runner.val_loop is None:
        return length
    return f'{length}; validation every {loop.val_interval:,} {unit} on {len(runner.val_dataloader.dataset):,} images'


def _line(name: str, text: str) -> str:
    return f'  {name:10}{text}'


def _consoles(logger: MMLogger) -> list[logging.Handler]:
    return [handler for handler in logger.handlers if type(handler) is logging.StreamHandler]


def _speak(runner: Runner) -> None:
    for handler, level in getattr(runner, 'console_levels', {}).items():
        handler.setLevel(level)
