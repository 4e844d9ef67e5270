"""What tools/score.py does: one score of many files, on held-out and test images, clean and damaged, side by side."""

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmpeft.mm.checks import UserError, check_data
from mmpeft.mm.reports.tables import markdown_table
from mmpeft.mm.running.config import buildable_config
from mmpeft.mm.running.holdout import hold_out, score_on_test
from mmpeft.mm.soups.corruptions import CORRUPTIONS, corrupt_validation
from mmpeft.mm.soups.scoring import CACHE, Scorer
from mmpeft.mm.soups.work_dirs import last_weights
from mmpeft.soups.ingredients import open_ingredients

SPLITS = dict(heldout=hold_out, test=score_on_test)


def compare(
    config: str,
    files: Sequence[str],
    out: str,
    *,
    ensemble: Sequence[str] = (),
    splits: Sequence[str] = tuple(SPLITS),
    corrupt: bool = False,
    metric: str | None = None,
    cfg_options: dict[str, Any] | None = None,
    tell: Callable[[str], None] = print,
) -> str:
    """Score files with the evaluator of a config and write the table; what was scored once is not scored again.

    Args:
        config: The config of the runs.
        files: Adapter files, soups among them, checkpoints, or work dirs for the last weights in them.
        out: The table to write (.md); the scores are kept in ``scores.json`` beside it.
        ensemble: Files whose predictions are averaged, for one more row.
        splits: ``heldout``, the images that the config holds out, and ``test``, its test data.
        corrupt: Score damaged copies of the images, too: blurred, noisy, and compressed as JPEG.
        metric: The name of the score; by default the first of the usual ones.
        cfg_options: Keys of the config to override.
        tell: Takes each line about what goes on.

    Raises:
        UserError: The config, the data or an option does not fit, or the table exists.
        SoupError: A file cannot be read or is not of the config's model.
    """
    place = Path(out).expanduser()
    if place.exists():
        raise UserError(f'{place} exists; name another --out, nothing is overwritten.')
    cfg = buildable_config(config, cfg_options)
    if 'heldout' in splits and not cfg.get('heldout'):
        raise UserError('The config names no held-out images; set heldout.ann_file, or score with --splits test.')
    columns = dict(_columns(cfg, splits, corrupt))
    scorer = Scorer(next(iter(columns.values())), metric, place.parent / CACHE)
    files, members = [last_weights(file) for file in files], [last_weights(file) for file in ensemble]
    opened = {path: open_ingredients([path], insist=True)[0] for path in [*files, *members]}
    for ingredient in opened.values():
        ingredient.check_model(scorer.model)
    names = [*files, *([f'ensemble of {len(members)}'] if members else [])]
    rows = {name: [name] for name in names}
    for column, variant in columns.items():
        scorer.score_on(variant)
        for name in names:
            if name in opened:
                score = scorer(opened[name].tensors, name)
            else:
                score = scorer.ensemble([opened[path].tensors for path in members], name)
            rows[name].append(f'{score:.4f}')
            tell(f'  {scorer.metric} {score:.4f}   {column}   {name}')
    text = f'{markdown_table((scorer.metric, *columns), list(rows.values()))}\n'
    place.write_text(text, encoding='utf-8')
    return text


def _columns(cfg: Config, splits: Sequence[str], corrupt: bool) -> Iterator[tuple[str, Config]]:
    """The name and the config of each column of the table."""
    for split in splits:
        clean = deepcopy(cfg)
        SPLITS[split](clean)
        check_data(clean, 'val')
        yield split, clean
        for kind in CORRUPTIONS if corrupt else ():
            damaged = deepcopy(clean)
            corrupt_validation(damaged, kind)
            yield f'{split}, {kind}', damaged
