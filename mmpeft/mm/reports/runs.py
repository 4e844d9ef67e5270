"""What a training left in its work dir: its config, its losses and its scores."""

import json
from dataclasses import dataclass
from pathlib import Path

from mmpeft.mm.checks import UserError

METRICS = ('coco/segm_mAP', 'coco/bbox_mAP', 'mIoU', 'dota/mAP', 'star/mAP', 'pascal_voc/mAP')


@dataclass(frozen=True)
class Run:
    """The scalars that a work dir holds: the losses and the scores by their steps, and the name of the score."""

    name: str
    metric: str
    losses: tuple[tuple[int, float], ...]
    scores: tuple[tuple[int, float], ...]


def read_run(work_dir: str | Path, metric: str | None = None, resumed: bool = False) -> Run:
    """The scalars of the newest training in a work dir.

    Args:
        work_dir: A folder that a training wrote.
        metric: The score; by default the first that is found of the usual ones.
        resumed: All trainings in it are one that was resumed: the newer ones' scalars take the place of older ones'.

    Raises:
        UserError: There is no log, or it does not hold the score.
    """
    files = sorted(Path(work_dir).glob('*/vis_data/scalars.json'))
    if not files:
        raise UserError(f'{work_dir} holds no log of a training: no */vis_data/scalars.json.')
    read = files if resumed else files[-1:]
    lines = [json.loads(line) for file in read for line in file.read_text().splitlines() if line.strip()]
    known = {name for line in lines for name in line}
    metric = metric or next((name for name in METRICS if name in known), None)
    if metric not in known:
        raise UserError(
            f'{files[-1]} has no score {metric or "of the usual names"}; it has {", ".join(sorted(known))}.'
        )
    losses, scores = ({line['step']: line[key] for line in lines if key in line} for key in ('loss', metric))
    return Run(Path(work_dir).name, metric, tuple(sorted(losses.items())), tuple(sorted(scores.items())))


def config_of(work_dir: str | Path) -> str:
    """The config that a training left in its work dir.

    Raises:
        UserError: There is none, or more than one.
    """
    found = sorted(Path(work_dir).glob('*.py'))
    if len(found) != 1:
        raise UserError(f'{work_dir} holds {len(found)} configs, and a work dir has one.')
    return str(found[0])
