"""Tables in Markdown and CSV."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any


def markdown(rows: Sequence[Any], heads: Mapping[str, str]) -> str:
    """Dataclass objects as a Markdown table: one column for each of ``heads`` that a row fills."""
    names = [name for name in heads if any(getattr(row, name) is not None for row in rows)]
    texts = [name for name in names if any(isinstance(getattr(row, name), str) for row in rows)]
    cells = [[_cell(getattr(row, name)) for name in names] for row in rows]
    return markdown_table([heads[name] for name in names], cells, [name in texts for name in names])


def markdown_table(heads: Sequence[str], rows: Sequence[Sequence[str]], texts: Sequence[bool] | None = None) -> str:
    """A Markdown table of cells; columns that are no ``texts`` are flush right."""
    rule = ['---' if text else '---:' for text in texts or [True] * len(heads)]
    return '\n'.join(f'| {" | ".join(line)} |' for line in (heads, rule, *rows))


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
