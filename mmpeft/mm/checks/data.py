"""Look at the data sets of a config before weights are downloaded and a model is built."""

import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.registry import DATASETS

from mmpeft.data import kinds
from mmpeft.data.check import check_part
from mmpeft.data.class_names import same_order
from mmpeft.data.coco import read_json
from mmpeft.data.findings import PartReport
from mmpeft.mm.checks.errors import UserError
from mmpeft.mm.checks.heads import check_heads
from mmpeft.mm.checks.parts import Described, described
from mmpeft.mm.checks.reading import evaluators, leaves, type_name

AT_MOST = 500  # images and label maps of a part that are looked at before training: a second or two
SHOWN = 3  # kinds of problems in one line
SAID = (kinds.LOOKS, kinds.NOT_CHOSEN, kinds.SAME_FILE)  # notes that a run is told
UNSCORED = (
    kinds.NOTHING_SEEN,
    kinds.NOTHING_LEFT,
)  # of test data: whoever wants the predictions alone needs no objects


def check_data(cfg: Config, *splits: str) -> None:
    """Refuse data sets that the config cannot be trained or scored on, as far as can be seen in seconds.

    Files that are missing, annotations that the loaders of the config cannot read or leave nothing of, class names and
    heads that do not fit them. The first process looks at all annotations, and at the first 500 images and label
    maps of each part.

    Args:
        cfg: A config; the paths in it are relative to the current folder.
        splits: Which of ``train``, ``val`` and ``test`` will be used.

    Raises:
        UserError: It names the key of the config and what is wrong.
    """
    check_files(cfg, *splits)
    for report in check_parts(cfg, splits, at_most=AT_MOST):
        _refuse(report, _boxes_alone(cfg) if kinds.NO_MASK in report.problems else '')


def check_files(cfg: Config, *splits: str) -> None:
    """Refuse data sets whose files are not there.

    Raises:
        UserError: Files or folders are missing; it says which layout is expected.
    """
    for split in splits:
        for key, dataset in _datasets(cfg, split):
            _check_files(key, dataset)
        for evaluator in evaluators(cfg, split):
            ann_file = evaluator.get('ann_file')
            if isinstance(ann_file, str) and _is_missing(ann_file):
                raise UserError(
                    f'{split}_evaluator: no file {ann_file}. Give the annotations of the {split} data with '
                    f'--cfg-options {split}_evaluator.ann_file=FILE.'
                )


def check_parts(
    cfg: Config, splits: Sequence[str], decode: bool = False, at_most: int | None = None
) -> Iterator[PartReport]:
    """What is found in each data set of ``splits`` whose kind is known, named by its key.

    Args:
        cfg: A config whose library is registered.
        splits: Of ``train``, ``val`` and ``test``.
        decode: Decode every image.
        at_most: Look at no more images and label maps of a part than that.

    Raises:
        UserError: The classes are no tuple, the heads do not fit them, or ``indices`` names images that are not there.
    """
    first: list[PartReport] = []
    for split in splits:
        for key, dataset in _datasets(cfg, split):
            known = described(cfg, split, key, dataset)
            if known is None:
                continue
            check_heads(cfg, key, dataset, known.names)
            if _is_first_process() and not _for_a_server(cfg, split):
                classes, labels = known.classes, known.labels
                report = check_part(known.format, known.root, known.part, classes, decode, labels, at_most)
                _check_indices(key, dataset.get('indices'), report.images)
                same_order([*first[:1], report])
                if known.format == 'coco':
                    first.append(report)
                    _check_truth(report, cfg, split, known)
                yield report


def _check_indices(key: str, indices: int | Sequence[int] | None, images: int) -> None:
    """Refuse a choice of images that the data set has not; a number takes as many of the first as there are."""
    last = max(indices, default=0) if isinstance(indices, Sequence) else 0
    if 0 < images <= last:
        raise UserError(f'{key}.indices goes up to {last}, and the last of its {images} images is {images - 1}.')


def _check_truth(report: PartReport, cfg: Config, split: str, known: Described) -> None:
    """Compare a json with those by which the metrics of ``split`` score."""
    path = str(known.root / str(known.part.annotations))
    files = [metric['ann_file'] for metric in evaluators(cfg, split) if metric.get('ann_file')]
    for other in [other for other in files if split != 'train' and os.path.realpath(other) != os.path.realpath(path)]:
        try:
            mine, theirs = (read_json(Path(file)) for file in (path, other))
            lost = {entry['id'] for entry in mine['images']} - {entry['id'] for entry in theirs['images']}
            names = [[entry['name'] for entry in content['categories']] for content in (mine, theirs)]
        except (ValueError, KeyError, TypeError) as error:
            report.problems[kinds.UNREADABLE_ANNOTATION].append(f'{other} ({error})')
            continue
        if lost or names[0] != names[1]:
            report.problems[kinds.OTHER_TRUTH].append(
                f'{split}_evaluator.ann_file={other} lacks {len(lost)} of the {len(mine["images"])} images and lists '
                f'{len(names[1])} categories of {len(names[0])}'
            )


def _datasets(cfg: Config, split: str) -> Iterator[tuple[str, dict]]:
    loader = cfg.get(f'{split}_dataloader')
    if isinstance(loader, dict) and 'dataset' in loader:
        for key, dataset in leaves(f'{split}_dataloader.dataset', loader['dataset']):
            if not dataset.get('backend_args'):  # on this file system
                yield key, dataset


def _refuse(report: PartReport, way_out: str) -> None:
    for kind in UNSCORED if report.name.startswith('test_') else ():
        for where in report.problems.pop(kind, ()):
            print_log(f'{report.name}: {kind}: {where}; there is nothing to score by.', 'current', logging.WARNING)
    if not report.count:
        for line in report.lines():
            if any(kind in line for kind in SAID):
                print_log(f'{report.name}: {line}', 'current', logging.WARNING)
        return
    found = [line.removeprefix('PROBLEM: ') for line in report.lines() if line.startswith('PROBLEM')]
    more = f'; and {len(found) - SHOWN} more kinds' if len(found) > SHOWN else ''
    raise UserError(
        f'{report.name}: {"; ".join(found[:SHOWN])}{more}.{way_out} All that is wrong: mmpeft check --config CONFIG.'
    )


def _boxes_alone(cfg: Config) -> str:
    """The options that make a config of masks one of boxes."""
    options = ['model.roi_head.mask_head=None'] if (cfg.model.get('roi_head') or {}).get('mask_head') else []
    for split in ('train', 'val', 'test'):
        for key, dataset in _datasets(cfg, split):
            steps = enumerate(dataset.get('pipeline') or ())
            options += [f'{key}.pipeline.{index}.with_mask=False' for index, step in steps if step.get('with_mask')]
        if any('segm' in (metric.get('metric') or ()) for metric in evaluators(cfg, split)):
            options.append(f'{split}_evaluator.metric=bbox')
    return f' Draw masks, or train boxes alone: --cfg-options {" ".join(options)}.'


def _is_first_process() -> bool:
    """Asked before mmengine has set up the processes; the launcher ends them all when the first one fails."""
    return os.environ.get('RANK', os.environ.get('SLURM_PROCID', '0')) == '0'


def _for_a_server(cfg: Config, split: str) -> bool:
    """Whether the data have no annotations to be scored by."""
    return any(evaluator.get('format_only') for evaluator in evaluators(cfg, split))


def _check_files(key: str, dataset: dict) -> None:
    root = dataset.get('data_root') or ''
    if str(dataset.get('type')).startswith('mmpeft.'):
        prepare = getattr(DATASETS.get(dataset['type']), 'prepare', None)
        if prepare is not None:  # it makes its data itself
            prepare(root)
    prefixes = dataset.get('data_prefix') or {}
    parts = [dataset.get('ann_file'), *(prefixes.values() if isinstance(prefixes, dict) else [prefixes])]
    expected = [part for part in parts if isinstance(part, str) and part] or ['']
    missing = [path for path in (os.path.join(root, part) for part in expected) if _is_missing(path)]
    if missing:
        raise UserError(
            f'Data not found: {", ".join(missing)} (seen from {os.getcwd()}). '
            f'{type_name(dataset.get("type"))} expects in {root or "the current folder"}: {", ".join(expected)}. '
            f'Put the data there, or say where it is with --cfg-options {key}.data_root=FOLDER.'
        )


def _is_missing(path: str) -> bool:
    return '://' not in path and not os.path.exists(os.path.expanduser(path))
