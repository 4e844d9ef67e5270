"""The scores of a run of a study: on held-out images while it trained, and on the test data at the end."""

import json
import sys
from pathlib import Path

from mmpeft.mm.checks import UserError
from mmpeft.mm.reports.runs import METRICS, read_run
from mmpeft.mm.running.many import Run
from mmpeft.mm.soups.work_dirs import last_weights

TEST = 'test'
IN_PER_CENT = ('mIoU',)  # as the evaluator itself gives it


def percent(metric: str, value: float) -> float:
    """A score in per cent, whatever the evaluator gives."""
    return value if metric in IN_PER_CENT else 100 * value


def curve(work_dir: Path) -> tuple[tuple[int, float], ...]:
    """The scores on held-out images by their iterations or epochs, in per cent; none if there are none."""
    try:
        run = read_run(work_dir, resumed=True)
    except UserError:
        return ()
    return tuple((step, percent(run.metric, score)) for step, score in run.scores)


def heldout_score(work_dir: Path) -> float | None:
    """The last score on held-out images of a run that came to its end."""
    scores = curve(work_dir) if (work_dir / 'finished').exists() else ()
    return scores[-1][1] if scores else None


def scoring_of(run: Run, tools: Path) -> Run:
    """The scoring of a trained run as a run of its own."""
    work_dir = run.work_dir / TEST
    weights = last_weights(str(run.work_dir))
    command = (sys.executable, str(tools / 'test.py'), str(run.config), weights, '--work-dir', str(work_dir))
    return Run(run.config, work_dir, command)


def final_metrics(work_dir: Path) -> dict[str, float]:
    """What the evaluator of the test data gave for a run; nothing if it was not scored."""
    folder = work_dir / TEST
    files = sorted(folder.glob('*/*.json')) if (folder / 'finished').exists() else []
    return json.loads(files[-1].read_text(encoding='utf-8')) if files else {}


def final_score(work_dir: Path) -> float | None:
    """The score on the test data, in per cent; None if there is none."""
    metrics = final_metrics(work_dir)
    metric = metric_of(metrics)
    return None if metric is None else percent(metric, metrics[metric])


def metric_of(metrics: dict[str, float]) -> str | None:
    """The name of the score among the metrics of an evaluator: the first of the usual ones."""
    return next((name for name in METRICS if name in metrics), None)
