"""The tables of recipes in PAGE, and METAFILE, made of the configs: ``python tests/zoo.py`` writes both anew."""

import copy
import json
import re
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import recipes
import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import MODELS, init_default_scope
from shrunk import TOP, config

import mmpeft
from mmpeft.freeze import ParameterCounts
from mmpeft.methods import METHODS
from mmpeft.mm.checks import register_library

PAGE = Path('docs/recipes.md')
METAFILE = Path('configs/metafile.yml')
START, END = '<!-- zoo -->\n', '<!-- zoo end -->'
HOSTS = dict(swin='Swin', vit='ViT', dinov2='DINOv2 ViT', dinov3='DINOv3 ViT')
# How certain a figure is, by a word in the brackets behind it; the first that is there counts.
MARKS = {'second-hand': 'S', 'third party': 'T', 'read off': 'R', 'log': 'L', 'arXiv': 'P', 'plot': 'P'}
FIGURE = r'(\d+\.\d+) (box AP|mask AP|AP50|mIoU|multi-scale|mAP)'


class Entry(NamedTuple):
    """One config: its base, method, data set and framework, and what is known of it."""

    name: str
    base: str
    method: str
    place: str
    counts: ParameterCounts
    figures: dict[str, str]


def header(path: str) -> str:
    """What a config says before its first statement."""
    return Path(path).read_text().partition('_base_')[0]


def counts(cfg: Config) -> ParameterCounts:
    """Those of the backbone of ``cfg`` in its real size; backbones that differ in rates alone share them."""
    parts = copy.deepcopy(cfg.model.backbone.to_dict())
    for key in ('init_cfg', 'drop_path_rate'):
        parts['backbone'].pop(key, None)
    parts['backbone']['type'] = parts['backbone']['type'].removeprefix('mmdet.')
    return _count_on_meta('mmdet' if cfg.default_scope == 'mmrotate' else cfg.default_scope, json.dumps(parts))


@cache
def _count_on_meta(scope: str, backbone: str) -> ParameterCounts:
    """Build without memory for the parameters."""
    register_library(scope)
    init_default_scope(scope)
    linspace = torch.linspace
    with pytest.MonkeyPatch.context() as patch, torch.device('meta'):
        # Stock code reads the rates of drop path off a tensor.
        patch.setattr(torch, 'linspace', lambda *args, **kwargs: linspace(*args, **{**kwargs, 'device': 'cpu'}))
        return mmpeft.count_parameters(MODELS.build(ConfigDict(json.loads(backbone))))


def figures(text: str) -> dict[str, str]:
    """The published figures that a header gives, by their units, each with the mark of its certainty."""
    said = re.split(r'\.\s+(?=[A-Z])', ' '.join(text.replace('#', ' ').split()).partition('Published: ')[2])[0]
    found = {}
    for match in re.finditer(FIGURE, said) if re.match(FIGURE, said) else ():
        source = said[match.end() :].partition('(')[2].partition(')')[0]
        found[match[2]] = f'{match[1]} {next(mark for word, mark in MARKS.items() if word in source)}'
    return found


def entry(name: str) -> Entry:
    text = header(f'configs/{name}.py')
    data, _, framework = (
        text.partition('\n')[0].rpartition(': ')[2].rstrip('.').partition(' on ')[2].partition(' with ')
    )
    (method,) = [method for method in METHODS if method.lower() == name.partition('_')[0]]
    place = f'{data}, {framework.partition(",")[0]}'
    return Entry(name, recipes.expected(name)['base'], method, place, counts(config(name)), figures(text))


def order(one: Entry) -> tuple:
    return list(recipes.BASES).index(one.base), list(METHODS).index(one.method), len(one.name), one.name


def title(base: str) -> str:
    host, size = base.split('-')
    return f'{HOSTS[host]}-{size.upper()}'


def millions(one: Entry) -> str:
    return f'{one.counts.trainable / 1e6:.{1 if one.counts.trainable >= 1e7 else 2}f}'


def per_cent(one: Entry) -> str:
    return f'{one.counts.percent_of_all:.2f}'


def span(texts: Iterable[str]) -> str:
    """One number, or the least and the greatest where data sets have slightly other backbones."""
    numbers = sorted(set(texts), key=float)
    return numbers[0] if len(numbers) == 1 else f'{numbers[0]}-{numbers[-1]}'


def shown(one: Entry) -> str:
    return ' / '.join(one.figures.values()) or 'config'


def links(cell: list[Entry], text: Callable[[Entry], str] = shown) -> str:
    """The configs of a cell: the first with ``text``, others with what their names have besides."""
    if not cell:
        return '-'
    first, *others = cell
    words = [text(first), *(one.name.removeprefix(f'{first.name}_') for one in others)]
    return ', '.join(f'[{word}](../configs/{one.name}.py)' for word, one in zip(words, cell, strict=True))


def by_method(base: str, entries: list[Entry]) -> list[list[str]]:
    """A row for each method on one base, another where it has many more parameters; a column for each data set."""
    places = dict.fromkeys(one.place for one in entries)
    units = {place: dict.fromkeys(u for one in entries if one.place == place for u in one.figures) for place in places}
    heads = [f'{place}: {" / ".join(units[place])}'.removesuffix(': ') for place in places]
    rows = [[title(base), 'trainable, M', '%', *heads], ['---', '---:', '---:', *['---'] * len(heads)]]
    for (method, _), same in grouped(entries, lambda one: (one.method, len(str(one.counts.trainable)))).items():
        cells = [links([one for one in same if one.place == place]) for place in places]
        rows.append([method, span(map(millions, same)), span(map(per_cent, same)), *cells])
    return rows


def by_framework(entries: list[Entry]) -> list[list[str]]:
    """A row for each base, data set and framework, a column for each method."""
    methods = dict.fromkeys(one.method for one in entries)
    rows = [['other frameworks and bases', *methods], ['---'] * (len(methods) + 1)]
    for (base, place), same in grouped(entries, lambda one: (one.base, one.place)).items():
        cells = [[one for one in same if one.method == method] for method in methods]
        rows.append([f'{title(base)}, {place}', *(links(cell, with_size) for cell in cells)])
    return rows


def with_size(one: Entry) -> str:
    figures = ' / '.join(f'{figure} {unit}' for unit, figure in one.figures.items())
    return f'{millions(one)} M, {per_cent(one)} %' + (f': {figures}' if figures else '')


def grouped(entries: list[Entry], key: Callable[[Entry], Any]) -> dict[Any, list[Entry]]:
    groups = {}
    for one in entries:
        groups.setdefault(key(one), []).append(one)
    return groups


def zoo() -> str:
    entries = sorted(map(entry, TOP), key=order)
    methods = {place: len({one.method for one in same}) for place, same in grouped(entries, in_place).items()}
    common = [one for one in entries if methods[in_place(one)] > 2]
    tables = [by_method(base, same) for base, same in grouped(common, lambda one: one.base).items()]
    tables.append(by_framework([one for one in entries if one not in common]))
    return '\n'.join(''.join(f'| {" | ".join(row)} |\n' for row in rows) for rows in tables)


def metafile() -> str:
    """The recipes as OpenMMLab's tools list them. Nobody ran them here, so they have no ``Results``."""
    lines = ['# Written by `python tests/zoo.py`: the recipes as mim lists them.', 'Models:']
    for one in sorted(map(entry, TOP), key=order):
        lines += [
            f'  - Name: {one.name}',
            f'    In Collection: {one.method}',
            f'    Config: configs/{one.name}.py',
            '    Metadata:',
            f'      Training Data: {one.place.partition(",")[0]}',
            f'      Architecture: [{title(one.base)}, "{one.place.partition(", ")[2]}"]',
            f'      Trained Parameters of the Backbone: {one.counts.trainable}',
        ]
        if one.figures:
            lines.append('      Published by Others:')
            lines += [f'        {unit}: {figure[:-2]}' for unit, figure in one.figures.items()]
    return '\n'.join(lines) + '\n'


def in_place(one: Entry) -> tuple[str, str]:
    return one.base, one.place


if __name__ == '__main__':
    before, _, rest = PAGE.read_text().partition(START)
    PAGE.write_text(before + START + zoo() + END + rest.partition(END)[2])
    METAFILE.write_text(metafile())
