"""What tools/compare.py does: train methods on one config with several rates and seeds, and say what came out."""

import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.logging import MMLogger

from mmpeft.files import write_atomically
from mmpeft.mm.checks import UserError, check_data, check_device
from mmpeft.mm.reports.benchmarking import read_method
from mmpeft.mm.running.holdout import hold_out
from mmpeft.mm.running.many import Cluster, Run, check_same, hand_over, train_all, write_plan, write_run
from mmpeft.mm.running.progress import clock
from mmpeft.mm.studies.outcomes import FULL, Outcome
from mmpeft.mm.studies.reporting import write_report
from mmpeft.mm.studies.scores import TEST, final_score, heldout_score, scoring_of
from mmpeft.mm.studies.splits import split
from mmpeft.mm.studies.timing import Cost, measure_costs, seconds_of_a_run
from mmpeft.mm.studies.trials import Trial, config_of, stock_config

PLAN = 'compare.json'
COSTS = 'costs.json'


@dataclass(frozen=True)
class Study:
    """A study that is about to run: its stock config, its methods, and where everything goes."""

    stock: Config
    methods: dict[str, dict]
    folder: Path
    tools: Path
    annotations: dict[float, str]

    def run(self, trial: Trial) -> Run:
        """Write the config of a run."""
        cfg = config_of(self.stock, self.methods[trial.method], trial, self.annotations)
        return write_run(cfg, self.folder / 'runs', trial.name, self.tools)


def compare(
    config: str,
    methods: Sequence[str],
    out: str,
    tools: Path,
    *,
    seeds: int = 3,
    lrs: Sequence[float] | None = None,
    fractions: Sequence[float] = (1.0,),
    launcher: str = 'local',
    jobs: int = 1,
    gpus: int = 1,
    partition: str = '',
    cfg_options: dict[str, Any] | None = None,
    tell: Callable[[str], None] = print,
) -> str | None:
    """Train each method with each rate on one seed, choose its rate on held-out images, and compare on the test data.

    All runs train on the training data without the held-out images, for as long as the config says. The run with the
    chosen rate, of which ties take the smaller one, is that of the first seed; the others follow with the same rate.
    The test data are read once for each of these, after all of them are trained. Called again, finished runs are left
    alone and broken ones resumed; more methods, rates, seeds and fractions add to what is there.

    Args:
        config: A config of mmdet, mmseg or mmrotate, adapted or not; its stock backbone is taken.
        methods: Names, with options as in ``'LoRA:rank=16'``; differences are to ``Full``, if it is among them.
        out: The folder for all of it.
        tools: The folder of train.py, test.py and of the scripts for several processes.
        seeds: How many runs a method gets with its rate: seeds 0 and on.
        lrs: The rates to choose from; by default a third of, one and three times the config's.
        fractions: Shares of the training images, each with all seeds; the rate is chosen on the largest.
        launcher: As for ``sweep``; elsewhere than here, the command is given once more after each of its two scripts.
        jobs: How many runs at a time, here.
        gpus: How many a run has, for the scripts.
        partition: Slurm's.
        cfg_options: Keys of the config to override.
        tell: Takes each line about what goes on.

    Returns:
        The table and what it says in words; None if runs are to be trained elsewhere first.

    Raises:
        UserError: An option or the config does not fit, the folder holds something else, or nothing could be trained.
    """
    cluster = Cluster(launcher, gpus, partition)
    stock = stock_config(config, cfg_options)
    rates, fractions = _check_numbers(stock, lrs, seeds, fractions, jobs)
    study = _begin(stock, methods, Path(out).resolve(), tools, fractions)
    costs = _costs(study, rates[0])
    choices = [Trial(name, lr, 0, fractions[-1]) for name in study.methods for lr in rates]
    cells = [(seed, fraction) for seed in range(seeds) for fraction in reversed(fractions)]
    _foretell(study, rates, cells, costs, jobs, tell)
    if not _train(study, choices, 'choose', cluster, jobs, tell):
        return None
    chosen = {name: _choose(study, [trial for trial in choices if trial.method == name]) for name in study.methods}
    for name, lr in chosen.items():
        tell(f'{name}: rate {lr:g}' if lr is not None else f'{name}: every run broke, it is left out')
    wanted = [Trial(name, lr, *cell) for cell in cells for name, lr in chosen.items() if lr is not None]
    if not _train(study, wanted, 'train', cluster, jobs, tell):
        return None
    return _finish(study, wanted, chosen, costs, jobs, tell)


def _check_numbers(
    stock: Config, lrs: Sequence[float] | None, seeds: int, fractions: Sequence[float], jobs: int
) -> tuple[list[float], list[float]]:
    own = stock.optim_wrapper.optimizer.lr
    rates, fractions = sorted({*(lrs or (own / 3, own, 3 * own))}), sorted({*fractions})
    if not all(rate > 0 for rate in rates):
        raise UserError(f'A learning rate is above 0, got --lrs {" ".join(map(str, rates))}.')
    if not all(0 < fraction <= 1 for fraction in fractions):
        raise UserError(f'A fraction is above 0 and at most 1, got --fractions {" ".join(map(str, fractions))}.')
    if seeds < 1 or jobs < 1:
        raise UserError(f'A study has at least one seed and one job, got --seeds {seeds} --jobs {jobs}.')
    return rates, fractions


def _begin(stock: Config, methods: Sequence[str], folder: Path, tools: Path, fractions: Sequence[float]) -> Study:
    """Check everything, and write the plan and the choice of images."""
    if not MMLogger.check_instance_created('compare'):
        MMLogger.get_instance('compare', log_level='WARNING')  # of how each layer was initialised nothing is told
    known = {text: read_method(text) for text in methods}
    plan = dict(config=stock.pretty_text)
    check_same(folder / PLAN, plan, 'comparison', started=(folder / 'data').is_dir())
    check_device(stock)
    check_data(stock, 'train', 'test')
    write_plan(folder / PLAN, plan)
    (folder / 'data').mkdir(exist_ok=True)
    study = Study(stock, known, folder, tools, split(stock, fractions, folder / 'data'))
    cfg = Config(stock.to_dict())
    hold_out(cfg)
    check_data(cfg, 'val')
    return study


def _costs(study: Study, lr: float) -> dict[str, Cost]:
    """What is known of the methods from before, and what is measured now."""
    path = study.folder / COSTS
    known = json.loads(path.read_text(encoding='utf-8')) if path.is_file() else {}
    lacking = [name for name in study.methods if name not in known]
    if lacking:
        configs = {
            name: config_of(
                study.stock, study.methods.get(name, dict(type=FULL)), Trial(name, lr, 0, 1), study.annotations
            )
            for name in (*lacking, FULL)
        }
        full = configs[FULL] if FULL in lacking else configs.pop(FULL)
        known |= {name: asdict(cost) for name, cost in measure_costs(full, configs).items()}
        text = json.dumps(known, indent=1)
        write_atomically(path, lambda file: file.write(text.encode()))
    return {name: Cost(**known[name]) for name in study.methods}


def _foretell(
    study: Study,
    rates: Sequence[float],
    cells: Sequence[tuple[int, float]],
    costs: dict[str, Cost],
    jobs: int,
    tell: Callable[[str], None],
) -> None:
    """Say how many runs and tests there are, and about how long those that are not finished take here."""
    left, tests, seconds = 0, 0, 0.0
    for name, cost in costs.items():
        done = {(lr, *cell): study.folder / 'runs' / Trial(name, lr, *cell).name for lr in rates for cell in cells}
        trained = {key for key, folder in done.items() if (folder / 'finished').exists()}
        scored = {key[1:] for key, folder in done.items() if (folder / TEST / 'finished').exists()}
        runs = sum((lr, *cells[0]) not in trained for lr in rates)
        runs += sum(not any((lr, *cell) in trained for lr in rates) for cell in cells[1:])
        if runs or len(scored) < len(cells):
            cfg = config_of(study.stock, study.methods[name], Trial(name, rates[0], *cells[0]), study.annotations)
            training, testing = seconds_of_a_run(cfg, cost.step)
            seconds += runs * training + (len(cells) - len(scored)) * testing
        left, tests = left + runs, tests + len(cells) - len(scored)
    each = len(rates) + len(cells) - 1
    tell(
        f'{len(costs)} methods with {each} runs, {len(rates)} of them to choose the rate, and {len(cells)} tests each: '
        f'{left} runs and {tests} tests are left, about {clock(seconds / jobs)} minutes, {jobs} at a time.'
    )


def _train(
    study: Study, trials: Sequence[Trial], stage: str, cluster: Cluster, jobs: int, tell: Callable[[str], None]
) -> bool:
    """Train what is not finished, or say how; whether the study can go on."""
    runs = [study.run(trial) for trial in trials]
    waiting = [run for run in runs if not run.marker.exists()]
    if cluster.launcher == 'local':
        train_all(waiting, jobs, tell)
        return True
    if not waiting:
        return True
    hand_over(waiting, cluster, study.folder / f'{stage}.sh', study.tools, tell)
    tell('When they are finished, give the same command again to go on.')
    return False


def _choose(study: Study, trials: Iterable[Trial]) -> float | None:
    """The rate with the best score on the held-out images; of equal ones the smaller."""
    scores = {trial.lr: heldout_score(study.folder / 'runs' / trial.name) for trial in trials}
    scores = {lr: score for lr, score in scores.items() if score is not None and math.isfinite(score)}
    return max(sorted(scores), key=scores.get) if scores else None


def _finish(
    study: Study,
    wanted: Sequence[Trial],
    chosen: dict[str, float | None],
    costs: dict[str, Cost],
    jobs: int,
    tell: Callable[[str], None],
) -> str:
    """Score the test data by what is trained, and write tables, plots and words."""
    trained = [run for run in map(study.run, wanted) if run.marker.exists()]
    tell(f'{len(trained)} of {len(wanted)} runs are trained; each reads the test data once')
    train_all([scoring_of(run, study.tools) for run in trained], jobs, tell)
    outcomes = [
        Outcome(t.method, t.fraction, t.lr, t.seed, final_score(study.folder / 'runs' / t.name)) for t in wanted
    ]
    if all(outcome.test is None for outcome in outcomes):
        raise UserError(f'Nothing was scored; the logs are in {study.folder}/runs/*/console.log.')
    return write_report(study.folder, outcomes, costs, chosen)
