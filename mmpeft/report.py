"""What was inserted where and what trains, as a table."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from mmpeft.freeze import ParameterCounts, count_parameters, is_adapter, trained_names
from mmpeft.hosts import adapters_of


@dataclass(frozen=True)
class Part:
    """One stage of a backbone: its name, its adapters as (method, site, number) and its parameters."""

    name: str
    adapters: tuple[tuple[str, str, int], ...]
    counts: ParameterCounts


@dataclass(frozen=True)
class Report:
    """The parts of an adapted backbone in order, and the counts of all of it."""

    parts: tuple[Part, ...]
    counts: ParameterCounts

    def __str__(self) -> str:
        rows = [('part', 'adapters', 'trainable', 'frozen', '% of base', '% of all')]
        rows += [_row(part.name, part.adapters, part.counts) for part in self.parts]
        rows.append(_row('backbone', (), self.counts))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return '\n'.join(_line(row, widths) for row in rows)


def _line(row: tuple[str, ...], widths: list[int]) -> str:
    """Cells in columns: names to the left, numbers to the right."""
    aligned = [
        cell.ljust(width) if i < 2 else cell.rjust(width)
        for i, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]
    return '  '.join(aligned)


def _row(name: str, adapters: tuple[tuple[str, str, int], ...], counts: ParameterCounts) -> tuple[str, ...]:
    inserted = ', '.join(f'{number} {method} {site}' for method, site, number in adapters)
    percents = f'{counts.percent_of_base:.3f}', f'{counts.percent_of_all:.3f}'
    return name, inserted, f'{counts.trainable:,}', f'{counts.frozen:,}', *percents


def _part_of(name: str) -> str:
    """``stages.0`` for everything in it, and the first component for what is not in a numbered list."""
    components = name.split('.')
    return '.'.join(components[:2] if len(components) > 1 and components[1].isdigit() else components[:1])


def report(backbone: nn.Module) -> Report:
    """Tell per stage what was inserted into ``backbone`` and what trains as things stand.

    Raises:
        ValueError: No method was injected into ``backbone``.
    """
    trained_names(backbone)
    sizes = defaultdict(Counter)
    for name, parameter in backbone.named_parameters():
        part = sizes[_part_of(backbone.known_as(name))]
        part['trainable' if parameter.requires_grad else 'frozen'] += parameter.numel()
        part['adapter'] += parameter.numel() * is_adapter(name)
    inserted = defaultdict(Counter)
    for place, adapter in adapters_of(backbone):
        inserted[_part_of(backbone.known_as(place))][type(adapter).__name__, place.rsplit('.', 1)[-1]] += 1
    parts = tuple(
        Part(
            name,
            tuple((*key, number) for key, number in inserted[name].items()),
            ParameterCounts(size['trainable'], size['frozen'], size['adapter']),
        )
        for name, size in sizes.items()
    )
    return Report(parts, count_parameters(backbone))


def listed(names: Sequence[str]) -> str:
    """The first of ``names`` and how many more there are."""
    return f'{names[0]} and {len(names) - 1} more' if len(names) > 1 else names[0]
