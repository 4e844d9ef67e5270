"""docs/results.md: its tables and words are what the tool makes of the CSV files beside it."""

from pathlib import Path

import pytest

from mmpeft.mm.studies.outcomes import in_words, read_rows, table

PAGE = Path('docs/results.md')
FILES = sorted(Path('docs/results').glob('*.csv'))


@pytest.mark.parametrize('path', FILES, ids=lambda path: path.stem)
def test_the_page_shows_the_table_of_each_study(path):
    rows, text = read_rows(path), PAGE.read_text()
    assert table(rows) in text
    assert in_words(rows) in ' '.join(text.split()) or in_words(rows) in text


def test_every_picture_of_the_page_is_there_and_small():
    pictures = [*Path('docs/results').glob('*.png')]
    assert pictures and all(f'(results/{path.name})' in PAGE.read_text() for path in pictures)
    assert sum(path.stat().st_size for path in pictures) < 300_000
