"""A CheckpointHook that a kill at any moment leaves with whole files."""

from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook as StockCheckpointHook
from mmengine.runner import Runner

from mmpeft.files import remove_leftovers, write_atomically
from mmpeft.mm.together import in_all
from mmpeft.registry import HOOKS


@register_backend('mmpeft', force=True)
class WholeFiles(LocalBackend):
    """Local files that are written as a whole or not at all, and deleted when ``delete_removed`` says so."""

    def __init__(self) -> None:
        super().__init__()
        self._removed = []

    def put(self, obj: bytes, filepath: str | Path) -> None:
        write_atomically(Path(filepath), lambda file: file.write(obj))

    def remove(self, filepath: str | Path) -> None:
        self._removed.append(str(filepath))

    def delete_removed(self, keep: set[str]) -> None:
        """Delete what was removed, except for the paths in ``keep``."""
        for path in self._removed:
            if path not in keep:
                Path(path).unlink(missing_ok=True)
        self._removed = []


@HOOKS.register_module()
class CheckpointHook(StockCheckpointHook):
    """mmengine's CheckpointHook with its options, in an order that a kill cannot break.

    Each checkpoint, best ones included, is written to a hidden file, flushed and renamed; then ``last_checkpoint``,
    in the same way; then what is outdated is deleted. mmengine deletes first and writes in place. Other places than
    the local disk (``s3://`` and the like) and ``file_client_args`` keep mmengine's way.

    Before it saves, hooks with a method ``before_checkpoint(runner)`` are called in all processes, of which the first
    alone saves. Where it cannot, because a disk is full or a folder is gone, all processes end.
    """

    _is_saving = False
    _local = False

    def before_train(self, runner: Runner) -> None:
        super().before_train(runner)
        self._local = isinstance(self.file_backend, LocalBackend)
        if not self._local:
            return
        self.backend_args = dict(backend='mmpeft')
        self.file_backend = WholeFiles()
        in_all(lambda: self._remove_leftovers(Path(runner.work_dir)))

    def _remove_leftovers(self, work_dir: Path) -> None:
        if is_main_process():
            remove_leftovers(Path(self.out_dir), '*.pth')
            remove_leftovers(work_dir, 'last_checkpoint')

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        save = self._save_whole if self._local else super()._save_checkpoint_with_step
        self._in_all(runner, lambda: save(runner, step, meta))

    def _in_all(self, runner: Runner, save: Callable[[], None]) -> None:
        """Do what the first process does alone; the newest checkpoint that follows a best one is part of it."""
        if self._is_saving:
            save()
            return
        runner.call_hook('before_checkpoint')
        self._is_saving = True
        try:
            in_all(save)
        finally:
            self._is_saving = False

    def _save_whole(self, runner: Runner, step: int, meta: dict) -> None:
        outdated = self._keep(runner, step)
        name = self.filename_tmpl.format(step)
        self.last_ckpt = self.file_backend.join_path(self.out_dir, name)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        runner.save_checkpoint(
            self.out_dir,
            name,
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            meta=meta,
            by_epoch=self.by_epoch,
            backend_args=self.backend_args,
            **self.args,
        )
        if not is_main_process():
            return
        write_atomically(Path(runner.work_dir, 'last_checkpoint'), lambda file: file.write(self.last_ckpt.encode()))
        for old in outdated:
            self._remove(self.file_backend.join_path(self.out_dir, self.filename_tmpl.format(old)))
        self.file_backend.delete_removed({self.last_ckpt, *self._best()})

    def _keep(self, runner: Runner, step: int) -> list[int]:
        """Count ``step`` among the checkpoints that stay; the ones that need not stay any more are returned.

        They still stand in the list that is saved, because mmengine deletes all that is too much in such a list when
        it resumes: a kill before they are deleted leaves nothing behind for good.
        """
        if self.max_keep_ckpts <= 0:
            return []
        steps = [*(kept for kept in self.keep_ckpt_ids if kept != step), step]
        runner.message_hub.update_info('keep_ckpt_ids', steps)
        self.keep_ckpt_ids = deque(steps, self.max_keep_ckpts)
        return steps[: -self.max_keep_ckpts]

    def _save_best_checkpoint(self, runner: Runner, metrics: dict[str, Any]) -> None:
        if not self.save_best:
            return
        self._in_all(runner, lambda: self._save_best(runner, metrics))

    def _save_best(self, runner: Runner, metrics: dict[str, Any]) -> None:
        super()._save_best_checkpoint(runner, metrics)
        if self._local and is_main_process():
            self.file_backend.delete_removed({*self._best()})

    def _best(self) -> list[str]:
        """The paths of the best checkpoints: one, or one for each metric."""
        paths = [getattr(self, 'best_ckpt_path', None), *getattr(self, 'best_ckpt_path_dict', {}).values()]
        return [str(path) for path in paths if path]

    def _remove(self, path: str) -> None:
        if self.file_backend.isdir(path):  # DeepSpeed's checkpoints are folders
            self.file_backend.rmtree(path)
        else:
            self.file_backend.remove(path)
