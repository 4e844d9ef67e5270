"""What tasks in a bank cost against as many models of their own: memory, and the time to switch."""

import copy
import gc
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
import yaml
from mmengine.registry import MODELS

from mmpeft.checkpoint import load_adapters, save_adapters
from mmpeft.costs import PROCESS, peak_bytes, resident_bytes
from mmpeft.freeze import is_adapter
from mmpeft.mm.bank import load_bank, scope_of, task_config
from mmpeft.mm.checks import UserError
from mmpeft.mm.reports.tables import markdown
from mmpeft.mm.running.trained import load_trained

MEGA = 1e6
CALLS = 10_000
HEADS = dict(
    tasks='tasks',
    bank='bank, MB',
    separate='separate models, MB',
    ratio='bank / separate',
    bank_peak='bank at its peak, MB',
    separate_peak='separate at their peak, MB',
    switch='switch, µs',
    reload='file loaded into one model instead, ms',
)


@dataclass(frozen=True)
class Row:
    """Memory of a process above that of one that has loaded no model yet, in megabytes (10^6 bytes), and times."""

    tasks: str
    bank: float
    separate: float
    ratio: float
    bank_peak: float
    separate_peak: float
    switch: float
    reload: float


def bank_costs(config: str, counts: Sequence[int] = (1, 4, 8)) -> str:
    """Measure tasks of one config in a bank and as separate models, each in a fresh process; the table.

    Args:
        config: A config with adapters; its base and its task get random weights.
        counts: Numbers of tasks.

    Raises:
        UserError: The config has no adapters, or the system does not tell how much memory a process has.
    """
    if not PROCESS.exists():
        raise UserError(f'The memory of a process is read from {PROCESS}, which this system does not have.')
    with tempfile.TemporaryDirectory() as folder:
        write_bank(config, Path(folder), max(counts))
        return markdown([_row(folder, count) for count in counts], HEADS)


def write_bank(config: str, folder: Path, count: int) -> None:
    """Write a base, one task on it, and a bank that has the task ``count`` times."""
    cfg = task_config(config)
    with scope_of(cfg):
        model = MODELS.build(copy.deepcopy(cfg.model))
    model.backbone.missing = frozenset()  # it has the values that it was built with
    state = {f'backbone.{n}': tensor for n, tensor in model.backbone.state_dict().items() if not is_adapter(n)}
    torch.save(dict(state_dict=state), folder / 'base.pth')
    save_adapters(model, folder / 'task.safetensors', base='base.pth')
    cfg.model.backbone.backbone.init_cfg = None
    cfg.dump(folder / 'task.py')
    task = dict(config='task.py', file='task.safetensors')
    (folder / 'bank.yaml').write_text(yaml.safe_dump(dict(tasks={str(i): task for i in range(count)})))


def _row(folder: str, count: int) -> Row:
    bank, bank_peak, switch = _in_fresh_process(measure_bank, folder, count)
    separate, separate_peak, reload = _in_fresh_process(measure_separate, folder, count)
    sizes = dict(bank=bank, separate=separate, bank_peak=bank_peak, separate_peak=separate_peak)
    sizes = {name: size / MEGA for name, size in sizes.items()}
    return Row(str(count), ratio=bank / separate, switch=1e6 * switch, reload=1e3 * reload, **sizes)


def _in_fresh_process(measure: Callable[[str, int], tuple], folder: str, count: int) -> tuple:
    with get_context('spawn').Pool(1) as pool:
        return pool.apply(measure, (folder, count))


def measure_bank(folder: str, count: int) -> tuple[int, int, float]:
    """Bytes of a bank with ``count`` tasks, bytes at the peak of loading it, and seconds of a switch."""
    names = [str(i) for i in range(count)]
    task_config(f'{folder}/task.py')  # imports the library
    bank, size, peak = _loaded(lambda: load_bank(f'{folder}/bank.yaml', names))
    start = perf_counter()
    for call in range(CALLS):
        bank.activate(names[call % count])
    return size, peak, (perf_counter() - start) / CALLS


def measure_separate(folder: str, count: int) -> tuple[int, int, float]:
    """Bytes of ``count`` models, bytes at the peak of loading them, and seconds to load another task into one."""
    cfg = task_config(f'{folder}/task.py')
    file = f'{folder}/task.safetensors'
    with scope_of(cfg):
        models, size, peak = _loaded(lambda: [load_trained(cfg, file)[0] for _ in range(count)])
    start = perf_counter()
    load_adapters(models[0], file)
    return size, peak, perf_counter() - start


def _loaded(load: Callable[[], Any]) -> tuple[Any, int, int]:
    """What ``load`` gives, and how much memory it holds and took at its peak."""
    kept, before = [], resident_bytes()
    peak = peak_bytes(lambda: kept.append(load()), torch.device('cpu'))
    gc.collect()
    return kept[0], resident_bytes() - before, peak
