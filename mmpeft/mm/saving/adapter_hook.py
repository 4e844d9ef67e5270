"""A registered hook that writes an adapter file beside each of the newest and best checkpoints."""

import logging
import re
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner

from mmpeft.adapter_file import KEY
from mmpeft.checkpoint import AdapterFile, adapted_backbone, missing_base, write_adapters
from mmpeft.mm.private import loaded_from, resumes
from mmpeft.mm.runners import bare_model, bare_state, check_strategy, fill_base, is_sharded, whole_model, whole_state
from mmpeft.mm.weights.loading import adapter_file_in
from mmpeft.registry import HOOKS

BASE = 'adapter_base'


@HOOKS.register_module()
class AdapterCheckpointHook(Hook):
    """Write ``adapters_last.safetensors``, and ``adapters_best_<metric>.safetensors`` where best checkpoints are kept.

    They lie beside the checkpoints of the CheckpointHook, hold the weights that those hold (with an EMAHook: the
    averaged ones), and each replaces the one before it atomically. A random base, which no file could name, gets none.
    """

    # After EMAHook, which exchanges the weights that are about to be saved.
    priority = 'LOWEST'
    _loaded: AdapterFile | None = None

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        self._loaded = adapter_file_in(checkpoint)

    def before_train(self, runner: Runner) -> None:
        check_strategy(runner, self)
        self._written = _announced(runner)
        self._on = not missing_base(adapted_backbone(bare_model(runner))[1])
        if not self._on:
            line = 'No adapter file is written: the base is random, and only whole checkpoints can bring it back.'
            print_log(line, 'current', logging.WARNING)
        if not resumes(runner):
            # An adapter file is no base: its own stays the base.
            base = self._loaded.info.base if self._loaded else loaded_from(runner)
            runner.message_hub.update_info(BASE, base)
            self._loaded = None

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        if not self._on:
            return
        announced = _announced(runner)
        # CheckpointHook announces a path just before it saves; the newest checkpoint may have the same one each time.
        new = {key for key in announced if announced[key] != self._written.get(key)} or {'last_ckpt'}
        self._written = announced
        model, state = bare_model(runner), bare_state(checkpoint['state_dict'])
        if is_sharded(runner):
            state = whole_state(runner)  # in all processes, which FSDP calls here
            if not is_main_process():
                return
            model = whole_model(runner)
            fill_base(model, state)
        task, base = checkpoint['meta'].get('dataset_meta'), runner.message_hub.runtime_info.get(BASE)
        facts = checkpoint['meta'].get(KEY, {})
        for key in new:
            path = Path(announced.get(key, runner.work_dir))
            folder = path.parent if path.parent.is_dir() else Path(runner.work_dir)
            name = 'last' if key == 'last_ckpt' else re.sub(r'_(epoch|iter)_\d+$', '', path.stem)
            write_adapters(folder / f'adapters_{name}.safetensors', model, state, task, base, facts)


def _announced(runner: Runner) -> dict[str, str]:
    """The paths of the newest and the best checkpoints, as CheckpointHook tells them."""
    info = runner.message_hub.runtime_info
    return {key: str(info[key]) for key in info if re.fullmatch(r'last_ckpt|best_ckpt.*', key)}
