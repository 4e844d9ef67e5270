"""What tools/sweep.py does: runs of one config from one start, with sampled hyper-parameters, to make a soup of."""

import json
import math
import random
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmpeft.files import write_atomically
from mmpeft.mm.checks import UserError, check_data, leaves
from mmpeft.mm.running.config import buildable_config
from mmpeft.mm.running.holdout import ADVICE, hold_out
from mmpeft.mm.soups.start_file import write_start

LAUNCHERS = ('local', 'print', 'torchrun', 'slurm')
PLAN = 'sweep.json'
SCRIPT = 'sweep.sh'
PHOTOMETRIC = ('PhotoMetricDistortion', 'mmdet.PhotoMetricDistortion')
FLIPS = ('RandomFlip', 'mmdet.RandomFlip')


@dataclass(frozen=True)
class Run:
    """One run of a sweep: its config, its work dir, what was sampled for it, and the command that trains it."""

    config: Path
    work_dir: Path
    sampled: Mapping[str, Any]
    command: tuple[str, ...]

    @property
    def marker(self) -> Path:
        """A file that says that the run came to its end."""
        return self.work_dir / 'finished'


def sweep(
    config: str,
    runs: int,
    out: str,
    tools: Path,
    *,
    seed: int = 0,
    lr: tuple[float, float] | None = None,
    decay: tuple[float, float] | None = None,
    launcher: str = 'local',
    gpus: int = 1,
    partition: str = '',
    cfg_options: dict[str, Any] | None = None,
    tell: Callable[[str], None] = print,
) -> None:
    """Write a start file and a config for each run, and train the runs or say how.

    The learning rate and the weight decay are drawn log-uniformly, and so are, where the training pipeline has them,
    the probability of flips and whether colours are distorted. Everything else is the config's. The seed of a run
    changes the order of data and dropout alone, as all starting values are in the start file. The first runs of a
    longer sweep are those of a shorter one. Called again, finished runs are left alone and broken ones resumed.

    Args:
        config: A config whose ``heldout`` names the images on which the soup will be chosen.
        runs: How many.
        out: The folder for all of it.
        tools: The folder of train.py and of the scripts for several processes.
        seed: What the starting values and the samples are drawn from.
        lr: The range of the learning rate; by default from a third to three times the config's.
        decay: That of the weight decay; by default from a tenth to ten times the config's.
        launcher: ``local`` trains one run after the other here, ``print`` prints the commands, ``torchrun`` writes a
            script that trains on several GPUs, ``slurm`` one for sbatch.
        gpus: How many a run has, for the scripts.
        partition: Slurm's.
        cfg_options: Keys of the config to override.
        tell: Takes each line about what goes on.

    Raises:
        UserError: The config names no held-out images, a range is none, the folder holds another sweep, or a run fails.
    """
    cfg = _read(config, cfg_options)
    ranges = _ranges(cfg, lr, decay)
    if runs < 1:
        raise UserError(f'A sweep has at least one run, got --runs {runs}.')
    if launcher == 'slurm' and not partition:
        raise UserError('Slurm needs a partition; name it with --partition.')
    folder = Path(out)
    plan = dict(config=cfg.pretty_text, seed=seed, ranges=ranges)
    start = next(iter(folder.glob('start.*')), None)
    _check_same(folder, plan, started=start is not None)
    # In this order: what a kill leaves behind says which sweep it is of.
    write_atomically(folder / PLAN, lambda file: file.write(json.dumps(plan).encode()))
    start = start or write_start(cfg, folder, seed)
    planned = [_plan(cfg, number, folder, start, tools, seed, ranges) for number in range(runs)]
    for run in planned:
        tell(f'{run.work_dir}: {", ".join(f"{name} {value:.4g}" for name, value in run.sampled.items())}')
    if launcher == 'local':
        for run in planned:
            _train(run, tell)
    elif launcher == 'print':
        tell('\n'.join(shlex.join(run.command) for run in planned))
    else:
        text = _torchrun(planned, tools, gpus) if launcher == 'torchrun' else _slurm(planned, tools, gpus, partition)
        write_atomically(folder / SCRIPT, lambda file: file.write(text.encode()))
        tell(f'Train with: {"bash" if launcher == "torchrun" else "sbatch"} {folder / SCRIPT}')
    soup = f'{folder / "greedy"}{start.suffix}'
    tell(f'Then mix with: mmpeft soup greedy {planned[0].config} {folder}/run_*/ --out {soup}')


def _read(config: str, cfg_options: dict[str, Any] | None) -> Config:
    cfg = buildable_config(config, cfg_options)
    if not cfg.get('heldout'):
        raise UserError(
            'A soup is chosen on images that no run was trained on, and the config names none: set heldout.ann_file, '
            f'with --cfg-options for example. {ADVICE}'
        )
    hold_out(cfg)
    check_data(cfg, 'train', 'val')
    return cfg


def _ranges(cfg: Config, lr: Sequence[float] | None, decay: Sequence[float] | None) -> dict[str, list[float]]:
    """What is drawn log-uniformly, with its least and its largest value."""
    optimizer, found = cfg.optim_wrapper.optimizer, {}
    for name, given, factor in (('lr', lr, 3), ('weight_decay', decay, 10)):
        own = optimizer.get(name)
        if given is None and not own:
            continue
        low, high = given or (own / factor, own * factor)
        if not 0 < low <= high:
            raise UserError(f'A range of {name} goes from a number above 0 to one at least as large, got {low} {high}.')
        found[name] = [low, high]
    return found


def _check_same(folder: Path, plan: dict, started: bool) -> None:
    """Refuse to mix two sweeps in one folder; one that has no start file yet left nothing to mix with."""
    path = folder / PLAN
    if not started or not path.is_file():
        found = folder.iterdir() if folder.is_dir() else ()
        if any(file != path and not file.name.startswith('.') for file in found):
            raise UserError(f'{folder} holds files that no sweep made; name another --out.')
        return
    before = json.loads(path.read_text(encoding='utf-8'))
    differing = [name for name in plan if before.get(name) != plan[name]]
    if differing:
        raise UserError(
            f'{folder} holds a sweep with another {" and ".join(differing)}; name another --out, or give the '
            'same arguments to go on with it.'
        )


def _plan(cfg: Config, number: int, folder: Path, start: Path, tools: Path, seed: int, ranges: Mapping) -> Run:
    """Sample one run and write its config."""
    draw = random.Random(f'{seed}:{number}')
    cfg = deepcopy(cfg)
    sampled = {name: math.exp(draw.uniform(*map(math.log, bounds))) for name, bounds in ranges.items()}
    cfg.optim_wrapper.optimizer.update(sampled)
    sampled['seed'] = draw.randrange(10_000)
    cfg.randomness = {**cfg.get('randomness', {}), 'seed': sampled['seed']}
    sampled |= _augment(cfg, draw)
    cfg.load_from, cfg.resume = str(start), False
    config, work_dir = folder / f'run_{number:02}.py', folder / f'run_{number:02}'
    if not config.is_file():
        text = cfg.pretty_text
        write_atomically(config, lambda file: file.write(text.encode()))
    command = (sys.executable, str(tools / 'train.py'), str(config), '--work-dir', str(work_dir), '--resume')
    return Run(config, work_dir, sampled, command)


def _augment(cfg: Config, draw: random.Random) -> dict[str, float]:
    """Sample how the training images are flipped and whether their colours are distorted, where the config does it."""
    flip, colours = draw.uniform(0.25, 0.75), draw.random() < 0.5
    sampled = {}
    for pipeline in _pipelines(cfg.train_dataloader.dataset):
        for transform in pipeline:
            if transform.type in FLIPS and isinstance(transform.get('prob'), float):
                transform.prob = sampled['flip'] = flip
        if any(transform.type in PHOTOMETRIC for transform in pipeline):
            sampled['photometric'] = float(colours)
            if not colours:
                pipeline[:] = [transform for transform in pipeline if transform.type not in PHOTOMETRIC]
    return sampled


def _pipelines(dataset: Any) -> Iterator[list]:
    for _, leaf in leaves('', dataset):
        if 'pipeline' in leaf:
            yield leaf.pipeline


def _train(run: Run, tell: Callable[[str], None]) -> None:
    if run.marker.exists():
        tell(f'{run.work_dir} is finished already')
        return
    run.work_dir.mkdir(parents=True, exist_ok=True)
    log = run.work_dir / 'console.log'
    tell(f'{run.work_dir}: training, the log is {log}')
    with log.open('ab') as file:
        before = file.tell()
        status = subprocess.run(run.command, stdout=file, stderr=subprocess.STDOUT).returncode
    if status:
        said = log.read_bytes()[before:].decode(errors='replace').split('\n')
        last = next((line.strip() for line in reversed(said) if line.strip()), f'status {status}, without a word')
        raise UserError(f'{run.work_dir} failed ({last}); see {log}.')
    run.marker.touch()


def _torchrun(runs: Sequence[Run], tools: Path, gpus: int) -> str:
    lines = ['#!/usr/bin/env bash', '# Trains each run on all GPUs, one after the other.', 'set -euo pipefail']
    for run in runs:
        config, work_dir, marker = (shlex.quote(str(path)) for path in (run.config, run.work_dir, run.marker))
        script = shlex.quote(str(tools / 'dist_train.sh'))
        lines.append(
            f'[ -e {marker} ] || {{ {script} {config} {gpus} --work-dir {work_dir} --resume; touch {marker}; }}'
        )
    return '\n'.join(lines) + '\n'


def _slurm(runs: Sequence[Run], tools: Path, gpus: int, partition: str) -> str:
    configs = ' '.join(shlex.quote(str(run.config)) for run in runs)
    script = shlex.quote(str(tools / 'slurm_train.sh'))
    return f"""#!/usr/bin/env bash
# An array job, one task a run: sbatch THIS_FILE. Submitted again, finished runs end at once and broken ones go on.
#SBATCH --job-name=sweep
#SBATCH --array=0-{len(runs) - 1}
#SBATCH --partition={partition}
#SBATCH --ntasks={gpus}
#SBATCH --gres=gpu:{gpus}
#SBATCH --cpus-per-task=5
set -euo pipefail
configs=({configs})
config=${{configs[$SLURM_ARRAY_TASK_ID]}}
work_dir=${{config%.py}}
[ -e "$work_dir/finished" ] && exit 0
GPUS={gpus} GPUS_PER_NODE={gpus} {script} {shlex.quote(partition)} sweep "$config" "$work_dir" --resume
touch "$work_dir/finished"
"""
