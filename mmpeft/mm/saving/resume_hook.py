"""What mmengine leaves out of its checkpoints, saved and put back, so that a resumed run ends with the same bits."""

import copy
import logging
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import torch
from mmengine.dist import gather_object, get_world_size
from mmengine.hooks import EarlyStoppingHook, Hook
from mmengine.logging import print_log
from mmengine.runner import IterBasedTrainLoop, Runner
from torch import Tensor
from torch.utils.data import DataLoader

from mmpeft.mm.checks import UserError
from mmpeft.mm.private import accumulates, resumes, update_val_interval
from mmpeft.mm.runners import bare_model, is_sharded, optim_wrappers
from mmpeft.mm.saving.checkpoint_hook import CheckpointHook
from mmpeft.mm.saving.resume import check_same_adapters, check_same_methods
from mmpeft.random_state import random_state, set_random_state
from mmpeft.registry import HOOKS


@HOOKS.register_module()
class ExactResumeHook(Hook):
    """Make a run that was killed and resumed end with the weights of one that was never killed, bit for bit.

    Checkpoints get the states of the random number generators (Python, NumPy, torch, GPU), the seeds of the sampler
    and of the workers, the gradients that each process has accumulated and not applied yet, and the counts and best
    scores of EarlyStoppingHook. Validation draws from a fork of the generators. A checkpoint that was written before
    the validation that was due is validated when it is resumed, so that schedules, best checkpoints and early stopping,
    which follow the metrics, go on as they would have.

    Exact on the CPU for epoch loops whose checkpoints are written by epoch and that have ``persistent_workers=False``,
    and for iteration loops with ``num_workers=0``. Elsewhere other random augmentations are drawn: workers are
    seeded by their rank and number, not by progress. Generators are saved and put back in the first process alone.

    Raises:
        UserError: The checkpoint has other adapters than the model, FSDP shards the model, or several processes
            accumulate gradients and mmengine's CheckpointHook saves.
    """

    priority = 'HIGHEST'

    def __init__(self) -> None:
        self._resumed = None
        self._outside = None  # the generators as they were before the validation that is going on
        self._gradients = None  # of each process, for the checkpoint that is about to be saved
        self._metrics = {}  # of that validation, once they are known

    def before_checkpoint(self, runner: Runner) -> None:
        self._gradients = None if is_sharded(runner) else gather_object(_gradients(runner))

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        if 'optimizer' not in checkpoint:
            return
        checkpoint['resume_state'] = dict(
            random=self._outside or random_state(),
            seeds=_seeds(runner.train_dataloader),
            gradients=self._gradients or [_gradients(runner)],
            validated=self._outside is not None,
            stopping=[_stopping(hook, self._metrics) for hook in _stoppers(runner)],
        )

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        if not resumes(runner):
            return
        if is_sharded(runner):
            raise UserError(
                'Training under FSDPStrategy is not resumed: each process holds shards of what has to be put back. '
                'Start anew from these weights with load_from, or use DDPStrategy.'
            )
        check_same_methods(runner.cfg, checkpoint)
        check_same_adapters(bare_model(runner), checkpoint)
        self._resumed = checkpoint.get('resume_state')
        if self._resumed is None:
            print_log(
                'The checkpoint was written without mmpeft.ExactResumeHook: it holds no state of the random number '
                'generators, so the run goes on with other random numbers.',
                'current',
                level=logging.WARNING,
            )

    def before_run(self, runner: Runner) -> None:
        runner.register_hook(_LastHook(self), priority='LOWEST')

    def before_train(self, runner: Runner) -> None:
        _check_saving(runner)
        loader = runner.train_dataloader
        if isinstance(runner.train_loop, IterBasedTrainLoop) and loader.generator is None:
            # A new iterator draws a number, and a resumed loop makes one where the first run did not.
            loader.generator = torch.Generator().manual_seed(runner.seed)
        if self._resumed is None:
            return
        _set_seeds(loader, self._resumed['seeds'], runner.rank)
        gradients = _gradients_for(runner.rank, self._resumed['gradients'])
        for name, parameter in bare_model(runner).named_parameters():
            if name in gradients:
                parameter.grad = gradients[name].to(parameter.device)
        for hook, state in zip(_stoppers(runner), self._resumed.get('stopping', ()), strict=False):
            hook.wait_count, hook.best_score = state['count'], state['best']
            runner.train_loop.stop_training |= state['stops']

    def before_train_epoch(self, runner: Runner) -> None:
        self._go_on(runner)

    def after_train(self, runner: Runner) -> None:
        self._go_on(runner)  # a run that was killed in its last validation trains no more

    def _go_on(self, runner: Runner) -> None:
        """Bring a resumed run to where the first one was after its checkpoint, the validation that was due included."""
        state, self._resumed = self._resumed, None
        if state is None:
            return
        if runner.rank == 0:
            set_random_state(state['random'])
        if not state['validated'] and _validation_is_due(runner):
            runner.val_loop.run()

    def before_val(self, runner: Runner) -> None:
        self._outside, self._metrics = random_state(), {}

    def after_val_epoch(self, runner: Runner, metrics: Mapping[str, float]) -> None:
        self._metrics = metrics

    def after_val(self, runner: Runner) -> None:
        set_random_state(self._outside)
        self._outside, self._metrics = None, {}


class _LastHook(Hook):
    """Lets the validation that was due run when every hook is ready, and before an epoch that it may call off."""

    def __init__(self, owner: ExactResumeHook) -> None:
        self.owner = owner

    def before_train(self, runner: Runner) -> None:
        if not isinstance(runner.train_loop, IterBasedTrainLoop):  # whose one epoch asks after it has begun
            self.owner._go_on(runner)


def _stoppers(runner: Runner) -> list[EarlyStoppingHook]:
    return [hook for hook in runner.hooks if isinstance(hook, EarlyStoppingHook)]


def _stopping(hook: EarlyStoppingHook, metrics: Mapping[str, float]) -> dict[str, Any]:
    """What a hook will have counted after a validation in which it is asked last, after what saves checkpoints."""
    counted = copy.copy(hook)
    stops = hook.monitor in metrics and counted._check_stop_condition(metrics[hook.monitor])[0]
    return dict(count=counted.wait_count, best=float(counted.best_score), stops=stops)


def _check_saving(runner: Runner) -> None:
    """Refuse a checkpoint that would hold the accumulated gradients of the first process alone."""
    ours = any(isinstance(hook, CheckpointHook) for hook in runner.hooks)
    if get_world_size() > 1 and not ours and any(map(accumulates, optim_wrappers(runner))):
        raise UserError(
            f'{get_world_size()} processes accumulate gradients of their own, and the CheckpointHook in use saves '
            "those of the first. Set default_hooks.checkpoint.type='mmpeft.CheckpointHook', or leave out "
            'ExactResumeHook.'
        )


def _gradients(runner: Runner) -> dict[str, Tensor]:
    """The gradients that this process has now."""
    return {name: p.grad.cpu() for name, p in bare_model(runner).named_parameters() if p.grad is not None}


def _gradients_for(rank: int, saved: list[dict[str, Tensor]] | dict[str, Tensor]) -> dict[str, Tensor]:
    """What a process goes on with: its own gradients, or the mean where as many processes as then are not there now.

    What DDP applies in the end is the mean, too. Checkpoints of old hold those of one process.
    """
    saved = saved if isinstance(saved, list) else [saved]
    if len(saved) == get_world_size():
        return saved[rank]
    names = {name for gradients in saved for name in gradients}
    return {name: sum(g[name] for g in saved if name in g) / len(saved) for name in names}


def _validation_is_due(runner: Runner) -> bool:
    """What the stock loops ask after each epoch or iteration."""
    loop = runner.train_loop
    if runner.val_loop is None or not update_val_interval(loop):
        return False
    by_iter = isinstance(loop, IterBasedTrainLoop)
    done, end = (loop.iter, loop.max_iters) if by_iter else (loop.epoch, loop.max_epochs)
    return done >= loop.val_begin and (done % loop.val_interval == 0 or done == end)


def _seeds(loader: DataLoader) -> dict[str, Any]:
    """The seeds from which a loader's sampler and workers draw, as far as they have any."""
    seeds = {}
    for sampler in _samplers(loader):
        seeds['sampler'] = sampler.seed
    if _seeded(loader.worker_init_fn):
        seeds['workers'] = loader.worker_init_fn.keywords['seed']
    return seeds


def _set_seeds(loader: DataLoader, seeds: dict[str, Any], rank: int) -> None:
    """Give a loader that has not begun the seeds of another; all processes share that of the sampler."""
    if 'sampler' in seeds:
        for sampler in _samplers(loader):
            sampler.seed = seeds['sampler']
    if 'workers' in seeds and _seeded(loader.worker_init_fn) and rank == 0:
        loader.worker_init_fn = partial(loader.worker_init_fn, seed=seeds['workers'])


def _samplers(loader: DataLoader) -> Iterator[Any]:
    for sampler in (loader.sampler, getattr(loader.batch_sampler, 'sampler', None), loader.batch_sampler):
        if hasattr(sampler, 'seed'):
            yield sampler


def _seeded(worker_init_fn: Any) -> bool:
    return isinstance(worker_init_fn, partial) and 'seed' in worker_init_fn.keywords
