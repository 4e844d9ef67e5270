"""How alike the features of models are, block by block: of trained ones to the pretrained one, and to each other."""

import csv
from collections.abc import Sequence
from pathlib import Path

from mmengine.config import Config
from mmengine.registry import init_default_scope

from mmpeft.mm.checks import UserError, check_data, check_free
from mmpeft.mm.reports.features import BASE, Similarities, compare
from mmpeft.mm.reports.sources import model_source, pretrained_backbone, some_images
from mmpeft.mm.reports.tables import markdown_table
from mmpeft.mm.running.config import buildable_config
from mmpeft.mm.running.trained import load_trained

# What makes other inputs of the same picture.
COLOURS = ('mean', 'std', 'bgr_to_rgb')


def similarity(paths: Sequence[str], images: int = 8, out: Path | None = None) -> str:
    """The table of similarities of trained models; with ``out``, a CSV and a picture in a folder, too.

    Args:
        paths: Work dirs of trainings, or ``CONFIG=CHECKPOINT``; their backbones have the same blocks, and the first
            config names the pretrained weights.
        images: How many of the first config's test images are looked at, spread over all of them.
        out: The folder to write to.

    Raises:
        UserError: A path is neither of the two; a checkpoint, pretrained weights or images are missing; the models
            cannot be compared; or the folder holds files already.
    """
    check_free(out)
    sources = [model_source(path) for path in paths]
    cfgs = [buildable_config(config) for config, _ in sources]
    _check_colours(cfgs)
    check_data(cfgs[0], 'test')
    names = [Path(path).name if Path(path).is_dir() else Path(path.partition('=')[0]).stem for path in paths]
    backbones = {BASE: pretrained_backbone(cfgs[0], sources[0][0])}
    for name, path, cfg, (_, checkpoint) in zip(names, paths, cfgs, sources, strict=True):
        init_default_scope(cfg.default_scope)
        backbones[name if names.count(name) == 1 else path] = load_trained(cfg, checkpoint)[0].backbone
    found = compare(backbones, some_images(cfgs[0], images))
    heads, *lines = _lines(found)
    text = markdown_table(heads, lines, [True, *[False] * len(found.values)])
    if out is not None:
        # Here, so that a table needs no matplotlib.
        from mmpeft.mm.reports.similarity_plots import draw_similarities

        out.mkdir(parents=True, exist_ok=True)
        (out / 'similarity.md').write_text(f'{text}\n', encoding='utf-8')
        with (out / 'similarity.csv').open('w', newline='', encoding='utf-8') as file:
            csv.writer(file).writerows([heads, *lines])
        draw_similarities(found, out / 'similarity.png')
    return text


def _check_colours(cfgs: Sequence[Config]) -> None:
    seen = [{key: cfg.model.data_preprocessor.get(key) for key in COLOURS} for cfg in cfgs]
    if any(one != seen[0] for one in seen):
        raise UserError(
            f'The models are given other colours: {", ".join(map(str, seen))}. Compare those that see the same.'
        )


def _lines(found: Similarities) -> list[list[str]]:
    """A line for each block, after one of heads."""
    heads = ['block', *(f'{a} / {b}' for a, b in found.values)]
    columns = zip(*found.values.values(), strict=True)
    return [heads, *([block, *(f'{v:.4f}' for v in row)] for block, row in zip(found.blocks, columns, strict=True))]
