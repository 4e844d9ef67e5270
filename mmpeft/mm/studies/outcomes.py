"""What the runs of a study come to: means, spreads and differences, as a table and in words."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from statistics import mean, stdev

from mmpeft.mm.reports.tables import markdown_table
from mmpeft.mm.studies.timing import Cost

FULL = 'Full'
HEADS = ('method', 'score', 'to full', 'seeds', 'rate', 'trained, M', '%', 'step / full', 'kept, MB', 'file, MB')


@dataclass(frozen=True)
class Outcome:
    """A run whose test data were scored, in per cent; ``test`` is None if it broke."""

    method: str
    fraction: float
    lr: float
    seed: int
    test: float | None


@dataclass(frozen=True)
class Row:
    """A method on a share of the training images.

    Attributes:
        method: As it was written on the command line.
        fraction: The share of the images.
        lr: The rate that was chosen; None if every run for the choice broke.
        seeds: How many runs were scored.
        broken: And how many broke.
        score: The mean of their scores, in per cent.
        deviation: Their standard deviation; None for less than two.
        difference: The mean of the differences to full fine-tuning of the same seeds.
        difference_deviation: The standard deviation of these.
        trainable: As in ``Cost``, and so is what follows.
        percent: Per cent of the backbone.
        step_of_full: The time of a step.
        kept: Megabytes.
        file: Megabytes.
        metric: The name of the score.
    """

    method: str
    fraction: float
    lr: float | None
    seeds: int
    broken: int
    score: float | None
    deviation: float | None
    difference: float | None
    difference_deviation: float | None
    trainable: float
    percent: float
    step_of_full: float
    kept: float
    file: float
    metric: str

    def overlaps(self, other: 'Row') -> bool:
        """Whether mean plus and minus one deviation of both overlap; without a deviation nothing tells them apart."""
        if self.deviation is None or other.deviation is None:
            return True
        return abs(self.score - other.score) <= self.deviation + other.deviation


def rows_of(
    outcomes: Sequence[Outcome], costs: Mapping[str, Cost], rates: Mapping[str, float | None], metric: str
) -> list[Row]:
    """A row for each share of the images and each method, in the order of ``costs``.

    Args:
        outcomes: Of all runs that belong into the table.
        costs: Of the methods.
        rates: What was chosen for them.
        metric: The name of the score.
    """
    found = []
    for fraction in sorted({outcome.fraction for outcome in outcomes}):
        scores: dict[str, dict[int, float | None]] = {name: {} for name in costs}
        for outcome in outcomes:
            if outcome.fraction == fraction:
                scores[outcome.method][outcome.seed] = outcome.test
        full = scores.get(FULL, {})
        for name, cost in costs.items():
            own = {seed: score for seed, score in scores[name].items() if score is not None}
            pairs = [score - full[seed] for seed, score in own.items() if full.get(seed) is not None]
            center, spread = _spread(list(own.values()))
            apart = _spread(pairs) if name != FULL else (None, None)
            counts = len(own), len(scores[name]) - len(own)
            row = name, fraction, rates[name], *counts, center, spread, *apart
            found.append(Row(*row, cost.trainable, cost.percent, cost.step_of_full, cost.kept, cost.file, metric))
    return found


def _spread(values: Sequence[float]) -> tuple[float | None, float | None]:
    return mean(values) if values else None, stdev(values) if len(values) > 1 else None


def table(rows: Sequence[Row]) -> str:
    """The rows as Markdown; with shares of the images where there are several."""
    shares = len({row.fraction for row in rows}) > 1
    heads = [*HEADS[:1], *(['images'] if shares else []), rows[0].metric, *HEADS[2:]]
    cells = [[row.method, *([f'{row.fraction:.0%}'] if shares else []), *_cells(row)] for row in rows]
    return markdown_table(heads, cells, [True] + [False] * (len(heads) - 1))


def _cells(row: Row) -> list[str]:
    return [
        _told(row.score, row.deviation),
        _told(row.difference, row.difference_deviation, '+'),
        f'{row.seeds} of {row.seeds + row.broken}' if row.broken else str(row.seeds),
        '-' if row.lr is None else f'{row.lr:g}',
        f'{row.trainable:.3f}',
        f'{row.percent:.1f}',
        f'{row.step_of_full:.2f}',
        f'{row.kept:,.0f}',
        f'{row.file:.1f}',
    ]


def _told(value: float | None, deviation: float | None, sign: str = '') -> str:
    if value is None:
        return '-'
    return f'{value:{sign}.1f}' + ('' if deviation is None else f' ± {deviation:.1f}')


def in_words(rows: Sequence[Row]) -> str:
    """Three sentences for each share of the images: what is best, what is within its noise, what is cheapest of these.

    Nothing is ranked where spreads overlap.
    """
    return '\n'.join(
        _in_words([row for row in rows if row.fraction == f]) for f in sorted({row.fraction for row in rows})
    )


def _in_words(rows: Sequence[Row]) -> str:
    scored = [row for row in rows if row.score is not None]
    on = f'On {rows[0].fraction:.0%} of the training images'
    if not scored:
        return f'{on} no run was scored.'
    best = max(scored, key=lambda row: row.score)
    near = [row for row in scored if row is not best and best.overlaps(row)]
    cheapest = min([best, *near], key=lambda row: row.trainable)
    lone = [row.method for row in scored if row.deviation is None]
    return ' '.join(
        [
            f'{on} {best.method} has the best mean {best.metric}, {_told(best.score, best.deviation)}.',
            f'Within its noise (mean ± deviation overlap, so that they are not ranked): {_listed(near)}.',
            f'The cheapest of these trains {cheapest.trainable:.3f} M parameters of the backbone: {cheapest.method}.',
            *([f'With one run alone nobody knows the noise: {", ".join(lone)}.'] if lone else []),
        ]
    )


def _listed(rows: Sequence[Row]) -> str:
    return ', '.join(row.method for row in rows) or 'none of the others'


def read_rows(path: Path) -> list[Row]:
    """The rows that were written as CSV."""
    with path.open(newline='', encoding='utf-8') as file:
        return [
            Row(**{f.name: _value(line[f.name], str(f.type)) for f in fields(Row)}) for line in csv.DictReader(file)
        ]


def _value(text: str, kind: str) -> str | float | int | None:
    if 'str' in kind:
        return text
    return None if text == '' else int(text) if 'int' in kind else float(text)
