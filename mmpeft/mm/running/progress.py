"""A training or a validation that is watched rather than logged: one moving line, and one for each result."""

import sys
import time
from collections.abc import Mapping
from typing import TextIO

from mmengine.hooks import Hook
from mmengine.runner import Runner

BAR = 30


class ProgressHook(Hook):
    """Show how far the training is, what the loss is, and the AP after each validation.

    Writes to the terminal itself, so that it is seen when the log goes elsewhere. Where the output is no terminal,
    the moving line becomes a line an epoch.
    """

    priority = 'LOW'

    def __init__(self) -> None:
        self.stream = sys.__stdout__

    def before_train(self, runner: Runner) -> None:
        self.start = time.monotonic()

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        if runner.rank == 0 and self.stream.isatty():
            _rewrite(self.stream, self._state(runner, runner.iter + 1))

    def after_train_epoch(self, runner: Runner) -> None:
        if runner.rank == 0 and not self.stream.isatty():
            print(self._state(runner, runner.iter), file=self.stream, flush=True)

    def after_val_epoch(self, runner: Runner, metrics: Mapping[str, float] | None = None) -> None:
        scores = {name: value for name, value in (metrics or {}).items() if name.endswith(('mAP', 'mAP_50'))}
        if runner.rank == 0 and scores:
            names = {'bbox_mAP': 'box AP', 'bbox_mAP_50': 'AP50'}
            shown = '   '.join(f'{names.get(k.split("/")[-1], k)} {100 * v:5.1f}' for k, v in scores.items())
            if self.stream.isatty():
                _rewrite(self.stream, '')
            print(f'  after epoch {runner.epoch:2d}   {shown}', file=self.stream, flush=True)

    def _state(self, runner: Runner, done: int) -> str:
        share = done / runner.max_iters
        gone = time.monotonic() - self.start
        loss = runner.message_hub.get_scalar('train/loss').mean(20)
        left = gone / share - gone
        epoch = f'epoch {runner.epoch + 1:2d}/{runner.max_epochs}'
        return f'  {epoch} [{_bar(share)}] loss {loss:6.3f}   {clock(gone)} gone, {clock(left)} left'


class ScoringHook(Hook):
    """Show on a terminal how far a validation is; ``what`` is being scored."""

    def __init__(self) -> None:
        self.what = ''
        self.stream = sys.__stdout__

    def before_val(self, runner: Runner) -> None:
        self.start = time.monotonic()

    def after_val_iter(self, runner: Runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        if self.stream.isatty():
            share, gone = (batch_idx + 1) / len(runner.val_dataloader), time.monotonic() - self.start
            times = f'{clock(gone)} gone, {clock(gone / share - gone)} left'
            _rewrite(self.stream, f'  {self.what} [{_bar(share)}] {times}')

    def after_val(self, runner: Runner) -> None:
        if self.stream.isatty():
            _rewrite(self.stream, '')


def _rewrite(stream: TextIO, line: str) -> None:
    stream.write(f'\r{line}\x1b[K')
    stream.flush()


def _bar(share: float) -> str:
    return ('#' * round(BAR * share)).ljust(BAR, '.')


def clock(seconds: float) -> str:
    """Minutes and seconds, as in 12:05."""
    return f'{int(seconds) // 60}:{int(seconds) % 60:02d}'
