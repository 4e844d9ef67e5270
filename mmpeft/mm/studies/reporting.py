"""Write what a study came to: tables, plots, and what they say in words."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from mmpeft.files import write_atomically
from mmpeft.mm.reports.tables import write_csv
from mmpeft.mm.studies.outcomes import Outcome, in_words, rows_of, table
from mmpeft.mm.studies.scores import curve, final_metrics, metric_of
from mmpeft.mm.studies.timing import Cost
from mmpeft.mm.studies.trials import Trial


def write_report(
    folder: Path,
    outcomes: Sequence[Outcome],
    costs: Mapping[str, Cost],
    chosen: Mapping[str, float | None],
) -> str:
    """Write ``compare.md`` and ``compare.csv``, ``runs.csv`` with every test, and the plots.

    Returns:
        The table and the words.
    """
    # Here, so that a table needs no matplotlib.
    from mmpeft.mm.studies.study_plots import draw_curves, draw_fractions, draw_scores

    metrics = (final_metrics(folder / 'runs' / _name(outcome)) for outcome in outcomes)
    metric = next(name for name in map(metric_of, metrics) if name)
    rows = rows_of(outcomes, costs, chosen, metric)
    text = f'{table(rows)}\n\n{in_words(rows)}\n'
    write_atomically(folder / 'compare.md', lambda file: file.write(text.encode()))
    write_csv(rows, folder / 'compare.csv')
    write_csv(outcomes, folder / 'runs.csv')
    curves = {outcome: curve(folder / 'runs' / _name(outcome)) for outcome in outcomes}
    whole = [row for row in rows if row.fraction == max(row.fraction for row in rows)]
    draw_scores(whole, folder / 'scores.png')
    draw_curves({outcome: found for outcome, found in curves.items() if found}, metric, folder / 'curves.png')
    if len({row.fraction for row in rows}) > 1:
        draw_fractions(rows, folder / 'fractions.png')
    return text


def _name(outcome: Outcome) -> str:
    return Trial(outcome.method, outcome.lr, outcome.seed, outcome.fraction).name
