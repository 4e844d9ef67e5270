"""The images of a study: a held-out part of the training data, and shares of the rest, each inside the next one."""

from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path

from mmengine.config import Config

from mmpeft.data.prepare import make_holdout, make_subset
from mmpeft.data.writing import ENDINGS
from mmpeft.mm.checks import UserError, evaluators, leaves
from mmpeft.mm.checks.parts import Described, described
from mmpeft.mm.running.holdout import ADVICE

HELD_OUT = 0.1


def split(cfg: Config, fractions: Sequence[float], folder: Path) -> dict[float, str]:
    """Let ``cfg`` name held-out images, in place, and write which images a share of the others is.

    What the config holds out itself stays so. Otherwise a tenth of the training images is drawn. Files that are there
    already are used.

    Args:
        cfg: A config whose library is registered.
        fractions: Shares of the images to train on.
        folder: Where the annotations go.

    Returns:
        For each share that needs one, what takes the place of ``ann_file`` of the (first) training data set.

    Raises:
        UserError: The data set is of no kind that images can be chosen of.
    """
    written = {}
    if not cfg.get('heldout'):
        held, written[1.0] = _hold_out(cfg, folder)
        cfg.heldout = dict(ann_file=held)
        if any(metric.get('ann_dir') for split in ('val', 'test') for metric in evaluators(cfg, split)):
            cfg.heldout.evaluator = dict(ann_dir=None)  # the labels of the patches are put together
    for fraction in fractions:
        if fraction != 1:
            written[fraction] = _share(cfg, written.get(1.0), fraction, folder)
    return written


def _hold_out(cfg: Config, folder: Path) -> tuple[str, str]:
    """Where the annotations of held-out images and of the rest are."""
    known = _training_part(cfg, None)
    paths = [folder / f'{name}{ENDINGS[known.format]}' for name in ('heldout', 'train')]
    if not all(path.exists() for path in paths):
        for _ in make_holdout(known.format, known.root.resolve(), folder, known.part, HELD_OUT):
            pass
    return str(paths[0]), str(paths[1])


def _share(cfg: Config, rest: str | None, fraction: float, folder: Path) -> str:
    known = _training_part(cfg, rest)
    out = folder / f'part{fraction:g}'.replace('.', '_')
    path = out.with_name(f'{out.name}{ENDINGS[known.format]}')
    if not path.exists():
        make_subset(known.format, known.root.resolve(), out, known.part, fraction)
    return str(path)


def _training_part(cfg: Config, ann_file: str | None) -> Described:
    cfg = deepcopy(cfg)
    key, dataset = next(leaves('train_dataloader.dataset', cfg.train_dataloader.dataset))
    if ann_file:
        dataset.ann_file = ann_file
    known = described(cfg, 'train', key, dataset)
    if known is None:
        raise UserError(
            f'Images of {dataset.get("type")} cannot be chosen here. Hold some out by yourself, name them as '
            f'heldout.ann_file in the config, and compare on all of the rest. {ADVICE}'
        )
    return known
