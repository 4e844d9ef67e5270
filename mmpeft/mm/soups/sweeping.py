"""What tools/sweep.py does: runs of one config from one start, with sampled hyper-parameters, to make a soup of."""

import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmpeft.mm.checks import UserError, check_data, leaves
from mmpeft.mm.running.config import buildable_config
from mmpeft.mm.running.holdout import ADVICE, hold_out
from mmpeft.mm.running.many import Cluster, Run, check_same, hand_over, train_here, write_plan, write_run
from mmpeft.mm.soups.start_file import write_start

PLAN = 'sweep.json'
SCRIPT = 'sweep.sh'
PHOTOMETRIC = ('PhotoMetricDistortion', 'mmdet.PhotoMetricDistortion')
FLIPS = ('RandomFlip', 'mmdet.RandomFlip')


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
    cluster = Cluster(launcher, gpus, partition)
    folder = Path(out)
    plan = dict(config=cfg.pretty_text, seed=seed, ranges=ranges)
    start = next(iter(folder.glob('start.*')), None)
    check_same(folder / PLAN, plan, 'sweep', started=start is not None)
    # In this order: what a kill leaves behind says which sweep it is of.
    write_plan(folder / PLAN, plan)
    start = start or write_start(cfg, folder, seed)
    planned = [_plan(cfg, number, folder, start, tools, seed, ranges) for number in range(runs)]
    for run, sampled in planned:
        tell(f'{run.work_dir}: {", ".join(f"{name} {value:.4g}" for name, value in sampled.items())}')
    if launcher == 'local':
        for run, _ in planned:
            train_here(run, tell)
    else:
        hand_over([run for run, _ in planned], cluster, folder / SCRIPT, tools, tell)
    soup = f'{folder / "greedy"}{start.suffix}'
    tell(f'Then mix with: mmpeft soup greedy {planned[0][0].config} {folder}/run_*/ --out {soup}')


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


def _plan(
    cfg: Config, number: int, folder: Path, start: Path, tools: Path, seed: int, ranges: Mapping
) -> tuple[Run, dict[str, float]]:
    """Write the config of one run, and what was sampled for it."""
    draw = random.Random(f'{seed}:{number}')
    cfg = deepcopy(cfg)
    sampled = {name: math.exp(draw.uniform(*map(math.log, bounds))) for name, bounds in ranges.items()}
    cfg.optim_wrapper.optimizer.update(sampled)
    sampled['seed'] = draw.randrange(10_000)
    cfg.randomness = {**cfg.get('randomness', {}), 'seed': sampled['seed']}
    sampled |= _augment(cfg, draw)
    cfg.load_from = str(start)
    return write_run(cfg, folder, f'run_{number:02}', tools), sampled


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
