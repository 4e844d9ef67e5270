"""Train and test from a config, for mmdet, mmseg and mmrotate alike."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from mmpeft.mm.checks import (
    UserError,
    check_data,
    check_device,
    check_values,
    check_work_dir,
    evaluators,
    read_config,
    register_library,
)
from mmpeft.mm.running.config import add_companions, inject_at_build, list_hook, log_to, use_exact_resume
from mmpeft.mm.running.fit import FiniteHook, FitHook
from mmpeft.mm.running.holdout import hold_out
from mmpeft.mm.running.start import CalmRunner, StartHook
from mmpeft.mm.running.tta import use_tta
from mmpeft.mm.saving.resume import check_same_methods, newest_resumable
from mmpeft.mm.weights.checkpoints import check_file, check_resumable, checkpoints_as_data

Options = Mapping[str, Any]


def train(
    config: str,
    *,
    work_dir: str | None = None,
    amp: bool = False,
    auto_scale_lr: bool = False,
    resume: str | None = None,
    tensorboard: bool = False,
    wandb: bool = False,
    cfg_options: Options | None = None,
    launcher: str = 'none',
) -> Runner:
    """Train what a config describes.

    Args:
        config: A config file of mmdet, mmseg or mmrotate.
        work_dir: Where logs and checkpoints go.
        amp: Train in mixed precision.
        auto_scale_lr: Scale the learning rate with the batch, as the config's ``auto_scale_lr`` says.
        resume: A checkpoint to go on from, or ``auto`` for the newest whole one in the work dir, if there is one.
        tensorboard: Write event files for TensorBoard, too.
        wandb: Send the log to Weights & Biases, too.
        cfg_options: Keys of the config to override.
        launcher: What started several processes: ``none``, ``pytorch``, ``slurm`` or ``mpi``.

    Raises:
        UserError: The config, the data, a checkpoint or the machine does not fit, or a package is missing.
    """
    cfg = _prepare(config, work_dir, cfg_options, launcher)
    if amp:
        _use_amp(cfg)
    if auto_scale_lr:
        _scale_lr(cfg)
    hold_out(cfg)
    for package, wanted in dict(tensorboard=tensorboard, wandb=wandb).items():
        if wanted:
            log_to(cfg, package)
    _set_start(cfg, resume)
    check_device(cfg)
    check_data(cfg, 'train', *(['val'] if cfg.get('val_cfg') else []))
    add_companions(cfg)
    list_hook(cfg, 'mmpeft.IngredientHook')
    use_exact_resume(cfg)
    with checkpoints_as_data(cfg):
        runner = _build(cfg)
        for hook in (FiniteHook(), StartHook()):
            runner.register_hook(hook)
        runner.train()
    return runner


def test(
    config: str,
    checkpoint: str,
    *,
    work_dir: str | None = None,
    out: str | None = None,
    show: bool = False,
    show_dir: str | None = None,
    wait_time: float = 2.0,
    tta: bool = False,
    cfg_options: Options | None = None,
    launcher: str = 'none',
) -> dict[str, float]:
    """Evaluate a checkpoint on the test data of a config.

    Args:
        config: A config file of mmdet, mmseg or mmrotate.
        checkpoint: A file or URL with the weights.
        work_dir: Where the log and the metrics go.
        out: Where the predictions go: a ``.pkl`` file (mmdet, mmrotate) or a folder of label maps (mmseg).
        show: Show the predictions in windows.
        show_dir: Folder for pictures of the predictions, inside the run's folder in the work dir.
        wait_time: How long a window stays, in seconds.
        tta: Test-time augmentation.
        cfg_options: Keys of the config to override.
        launcher: What started several processes: ``none``, ``pytorch``, ``slurm`` or ``mpi``.

    Returns:
        The metrics by name.

    Raises:
        UserError: The config, the data, the checkpoint or an option does not fit.
    """
    cfg = _prepare(config, work_dir, cfg_options, launcher)
    if '://' not in checkpoint:
        check_file(checkpoint)
    cfg.load_from, cfg.resume = checkpoint, False
    check_data(cfg, 'test')
    if show or show_dir:
        _draw(cfg, show, show_dir, wait_time)
    if out is not None:
        _check_out(cfg, out)
    if tta:
        use_tta(cfg)
    with checkpoints_as_data(cfg):
        runner = _build(cfg)
        for hook in (FitHook(), FiniteHook(), StartHook()):
            runner.register_hook(hook)
        if out is not None and cfg.default_scope != 'mmseg':
            runner.test_evaluator.metrics.append(_dump_metric(cfg.default_scope, out))
        return runner.test()


def _prepare(config: str, work_dir: str | None, options: Options | None, launcher: str) -> Config:
    cfg = read_config(config, options)
    register_library(cfg.get('default_scope'))
    cfg.launcher = launcher
    if work_dir is not None or cfg.get('work_dir') is None:
        cfg.work_dir = work_dir or os.path.join('work_dirs', Path(config).stem)
    check_work_dir(cfg.work_dir)
    check_values(cfg)
    inject_at_build(cfg)
    return cfg


def _set_start(cfg: Config, resume: str | None) -> None:
    """Let ``cfg`` say what to go on from, or else what to start from."""
    if resume is None and cfg.get('resume'):
        resume = cfg.get('load_from') or 'auto'
    path, checkpoint = newest_resumable(cfg.work_dir) if resume == 'auto' else (resume, None)
    cfg.resume = path is not None
    if path is not None:
        cfg.load_from = path
    if not cfg.get('load_from') or '://' in cfg.load_from:
        return
    if cfg.resume:
        check_same_methods(cfg, checkpoint or check_resumable(cfg.load_from))
    else:
        check_file(cfg.load_from)


def _build(cfg: Config) -> Runner:
    return RUNNERS.build(cfg) if 'runner_type' in cfg else CalmRunner.from_cfg(cfg)


def _use_amp(cfg: Config) -> None:
    if cfg.optim_wrapper.get('type', 'OptimWrapper') not in ('OptimWrapper', 'AmpOptimWrapper'):
        raise UserError(f'--amp works with OptimWrapper, and the config sets {cfg.optim_wrapper.type}.')
    cfg.optim_wrapper.type = 'AmpOptimWrapper'
    cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')


def _scale_lr(cfg: Config) -> None:
    if 'base_batch_size' not in cfg.get('auto_scale_lr', {}):
        raise UserError('--auto-scale-lr needs auto_scale_lr = dict(base_batch_size=...) in the config.')
    cfg.auto_scale_lr.enable = True


def _draw(cfg: Config, show: bool, show_dir: str | None, wait_time: float) -> None:
    hook = cfg.get('default_hooks', {}).get('visualization')
    if hook is None:
        raise UserError('--show and --show-dir need a visualization hook in the default_hooks of the config.')
    hook.draw = True
    if show:
        hook.show, hook.wait_time = True, wait_time
    if show_dir and cfg.default_scope == 'mmseg':
        cfg.visualizer.save_dir = show_dir
    elif show_dir:
        hook.test_out_dir = show_dir


def _check_out(cfg: Config, out: str) -> None:
    path = Path(out)
    if path.is_file() or (path.is_dir() and any(path.iterdir())):
        raise UserError(f'--out {out} exists; name another place, nothing is overwritten.')
    if cfg.default_scope == 'mmseg':
        for evaluator in evaluators(cfg, 'test'):
            evaluator.output_dir, evaluator.keep_results = out, True
    elif path.suffix not in ('.pkl', '.pickle'):
        raise UserError(f'--out takes a .pkl file for {cfg.default_scope}, got {out}.')


def _dump_metric(scope: str, out: str) -> Any:
    if scope == 'mmdet':
        from mmdet.evaluation import DumpDetResults

        return DumpDetResults(out_file_path=out)
    from mmengine.evaluator import DumpResults

    return DumpResults(out_file_path=out)
