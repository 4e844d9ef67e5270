"""What configs cost and what runs reached, side by side."""

from collections.abc import Sequence
from pathlib import Path

from mmpeft.mm.checks import check_free
from mmpeft.mm.reports.costs import costs
from mmpeft.mm.reports.runs import config_of, read_run
from mmpeft.mm.reports.tables import markdown, write_csv

HEADS = {
    'name': 'config',
    'methods': 'methods',
    'trainable': 'trainable, M',
    'percent_of_base': '% of base',
    'percent_of_all': '% of all',
    'whole': 'with heads, M',
    'gflops': 'GFLOPs',
    'activations': 'activations, MB',
    'optimizer': 'optimizer, MB',
    'file': 'file, MB',
    'score': 'best score',
    'last': 'last score',
}


def report(
    paths: Sequence[str],
    shape: tuple[int, int] | None = None,
    metric: str | None = None,
    out: Path | None = None,
) -> str:
    """The table of several configs and work dirs; with ``out``, that table, a CSV and pictures in a folder, too.

    Raises:
        UserError: A path is no config and no work dir, or the folder holds files already.
    """
    check_free(out)
    runs = {path: read_run(path, metric) for path in paths if Path(path).is_dir()}
    rows = [costs(config_of(path) if path in runs else path, shape, runs.get(path)) for path in paths]
    text = markdown(rows, HEADS)
    if out is not None:
        # Here, so that a table needs no matplotlib.
        from mmpeft.mm.reports.report_plots import draw_costs, draw_runs, draw_scores

        out.mkdir(parents=True, exist_ok=True)
        (out / 'report.md').write_text(f'{text}\n', encoding='utf-8')
        write_csv(rows, out / 'report.csv')
        draw_costs(rows, out / 'costs.png')
        if runs:
            draw_runs(list(runs.values()), out / 'runs.png')
            scored = [row for row in rows if row.score is not None]
            draw_scores(scored, ', '.join(sorted({run.metric for run in runs.values()})), out / 'scores.png')
    return text
