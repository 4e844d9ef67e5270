"""What configs cost and what runs reached, side by side."""

import copy
import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from torch import nn

from mmpeft.checkpoint import tensors_to_save
from mmpeft.costs import flops, saved_bytes, without_content
from mmpeft.freeze import adapted_backbones, count_parameters
from mmpeft.mm.checks import UserError, check_free
from mmpeft.mm.running.config import buildable_config

SHAPES = {'mmdet': (800, 1344), 'mmrotate': (1024, 1024)}
# Tensors of a parameter's size that an optimizer keeps; SGD keeps one if it has momentum.
STATES = {'Adam': 2, 'AdamW': 2, 'NAdam': 2, 'RAdam': 2, 'Adamax': 2, 'Adagrad': 1, 'Lion': 1}
METRICS = ('coco/segm_mAP', 'coco/bbox_mAP', 'mIoU', 'dota/mAP', 'star/mAP', 'pascal_voc/mAP')
MEGA = 1e6


@dataclass(frozen=True)
class Costs:
    """What training one config costs; sizes are in megabytes (10^6 bytes) of fp32.

    Attributes:
        name: The config's name.
        methods: The methods in its backbone.
        trainable: Trainable parameters of the backbone, in millions.
        percent_of_base: The same in per cent of the backbone without adapters.
        percent_of_all: And in per cent of the backbone with adapters.
        whole: Trainable parameters of the whole model, in millions.
        gflops: Operations of the backbone for one image, a multiply-add counted as two.
        activations: What the backbone keeps of one image for the backward pass.
        optimizer: What the optimizer keeps for the trainable parameters; None if it is an unknown one.
        file: The adapter file, or all weights where there are no adapters.
        score: The best score of a run.
        last: Its last score.
    """

    name: str
    methods: str
    trainable: float
    percent_of_base: float
    percent_of_all: float
    whole: float
    gflops: float
    activations: float
    optimizer: float | None
    file: float
    score: float | None = None
    last: float | None = None


@dataclass(frozen=True)
class Run:
    """The scalars that a work dir holds: the losses and the scores by their steps, and the name of the score."""

    name: str
    metric: str
    losses: tuple[tuple[int, float], ...]
    scores: tuple[tuple[int, float], ...]


def report(
    paths: Sequence[str],
    shape: tuple[int, int] | None = None,
    metric: str | None = None,
    out: Path | None = None,
) -> str:
    """The table of several configs and work dirs; with ``out``, that table, a CSV and pictures in a folder, too.

    Raises:
        UserError: A path is no config and no work dir, or the folder holds files already.
    """
    check_free(out)
    runs = {path: read_run(path, metric) for path in paths if Path(path).is_dir()}
    rows = [costs(config_of(path) if path in runs else path, shape, runs.get(path)) for path in paths]
    text = markdown(rows, HEADS)
    if out is not None:
        # Here, so that a table needs no matplotlib.
        from mmpeft.mm.reports.report_plots import draw_costs, draw_runs, draw_scores

        out.mkdir(parents=True, exist_ok=True)
        (out / 'report.md').write_text(f'{text}\n', encoding='utf-8')
        write_csv(rows, out / 'report.csv')
        draw_costs(rows, out / 'costs.png')
        if runs:
            draw_runs(list(runs.values()), out / 'runs.png')
            scored = [row for row in rows if row.score is not None]
            draw_scores(scored, ', '.join(sorted({run.metric for run in runs.values()})), out / 'scores.png')
    return text


def costs(config: str, shape: tuple[int, int] | None = None, run: Run | None = None) -> Costs:
    """Build the model of a config and count; operations and activations come without any computing.

    Args:
        config: A config file of mmdet, mmseg or mmrotate.
        shape: Height and width of the input; by default those that the library's configs have.
        run: What a training with it reached.

    Raises:
        UserError: The config cannot be built.
    """
    cfg = buildable_config(config)
    model = MODELS.build(copy.deepcopy(cfg.model))
    backbone = model.backbone
    counts, whole = count_parameters(backbone), count_parameters(model)
    saved = tensors_to_save(model, model.state_dict())
    methods = [m['type'] for b in adapted_backbones(model).values() for m in b.adapter_methods]
    gflops, activations = _measure(backbone, shape or _shape_of(cfg))
    states = _optimizer_states(cfg.optim_wrapper.get('optimizer', {}))
    return Costs(
        name=run.name if run else Path(config).stem,
        methods=', '.join(methods) or 'none',
        trainable=counts.trainable / MEGA,
        percent_of_base=counts.percent_of_base,
        percent_of_all=counts.percent_of_all,
        whole=whole.trainable / MEGA,
        gflops=gflops / 1e9,
        activations=activations / MEGA,
        optimizer=None if states is None else 4 * states * whole.trainable / MEGA,
        file=sum(tensor.nbytes for tensor in saved.values()) / MEGA,
        score=max(score for _, score in run.scores) if run and run.scores else None,
        last=run.scores[-1][1] if run and run.scores else None,
    )


def _measure(backbone: nn.Module, shape: tuple[int, int]) -> tuple[int, int]:
    """Operations and kept bytes of one image, by tensors without content."""
    backbone.allow_random_base = True
    with without_content(backbone):
        image = torch.empty(1, 3, *shape)
        backbone.eval()
        operations = flops(lambda: backbone(image))
        backbone.train()
        return operations, saved_bytes(backbone, lambda: backbone(image))


def _shape_of(cfg: Config) -> tuple[int, int]:
    size = cfg.model.get('data_preprocessor', {}).get('size') or SHAPES.get(cfg.default_scope, (512, 512))
    return tuple(size)


def _optimizer_states(optimizer: Mapping[str, Any]) -> int | None:
    if optimizer.get('type') == 'SGD':
        return int(bool(optimizer.get('momentum')))
    return STATES.get(optimizer.get('type'))


def read_run(work_dir: str | Path, metric: str | None = None) -> Run:
    """The scalars of the newest training in a work dir.

    Args:
        work_dir: A folder that a training wrote.
        metric: The score; by default the first that is found of the usual ones.

    Raises:
        UserError: There is no log, or it does not hold the score.
    """
    files = sorted(Path(work_dir).glob('*/vis_data/scalars.json'))
    if not files:
        raise UserError(f'{work_dir} holds no log of a training: no */vis_data/scalars.json.')
    lines = [json.loads(line) for line in files[-1].read_text().splitlines() if line.strip()]
    known = {name for line in lines for name in line}
    metric = metric or next((name for name in METRICS if name in known), None)
    if metric not in known:
        raise UserError(
            f'{files[-1]} has no score {metric or "of the usual names"}; it has {", ".join(sorted(known))}.'
        )
    losses = tuple((line['step'], line['loss']) for line in lines if 'loss' in line)
    scores = tuple((line['step'], line[metric]) for line in lines if metric in line)
    return Run(Path(work_dir).name, metric, losses, scores)


def config_of(work_dir: str | Path) -> str:
    """The config that a training left in its work dir.

    Raises:
        UserError: There is none, or more than one.
    """
    found = sorted(Path(work_dir).glob('*.py'))
    if len(found) != 1:
        raise UserError(f'{work_dir} holds {len(found)} configs, and a work dir has one.')
    return str(found[0])


HEADS = {
    'name': 'config',
    'methods': 'methods',
    'trainable': 'trainable, M',
    'percent_of_base': '% of base',
    'percent_of_all': '% of all',
    'whole': 'with heads, M',
    'gflops': 'GFLOPs',
    'activations': 'activations, MB',
    'optimizer': 'optimizer, MB',
    'file': 'file, MB',
    'score': 'best score',
    'last': 'last score',
}


def markdown(rows: Sequence[Any], heads: Mapping[str, str]) -> str:
    """Dataclass objects as a Markdown table: one column for each of ``heads`` that a row fills."""
    names = [name for name in heads if any(getattr(row, name) is not None for row in rows)]
    texts = [name for name in names if any(isinstance(getattr(row, name), str) for row in rows)]
    lines = [[heads[name] for name in names], ['---' if name in texts else '---:' for name in names]]
    lines += [[_cell(getattr(row, name)) for name in names] for row in rows]
    return '\n'.join(f'| {" | ".join(line)} |' for line in lines)


def _cell(value: Any) -> str:
    if value is None:
        return '-'
    return str(value) if isinstance(value, str | int) else f'{value:,.3f}' if value < 10 else f'{value:,.1f}'


def write_csv(rows: Sequence[Any], path: Path) -> None:
    """Dataclass objects of one class as CSV with full precision."""
    names = [field.name for field in fields(rows[0])]
    with path.open('w', newline='', encoding='utf-8') as file:
        writer = csv.writer(file)
        writer.writerow(names)
        writer.writerows([getattr(row, name) for name in names] for row in rows)
