"""Whether the labels of all maps of a part together are what their loader takes them for."""

from collections.abc import Sequence

from mmpeft.data import kinds
from mmpeft.data.findings import PartReport
from mmpeft.data.folders import IGNORED
from mmpeft.data.records import Record
from mmpeft.data.trees import Part


def check_labels(report: PartReport, part: Part, records: Sequence[Record], classes: Sequence[str]) -> None:
    """Say what the labels look like, where that is not what ``reduce_zero_label`` makes of them."""
    values = frozenset().union(*(record.values for record in records))
    labels, reduce = values - {IGNORED}, part.loader.reduce_zero_label
    if IGNORED in values and labels <= {0} and len(classes) != 1:
        where = f'{part.annotations} holds {" and ".join(map(str, sorted(values)))}; draw the labels of the classes'
        report.problems[kinds.ALONE].append(where)
    elif not classes:
        return
    elif len(labels) > 1 and 0 in labels and max(labels) == len(classes) - 1 and reduce is not False:
        report.problems[kinds.LOOKS].append(
            f'{part.annotations} holds 0 to {max(labels)} for {len(classes)} classes, as with reduce_zero_label=False; '
            'with True, 0 is ignored and 1 is the first class'
        )
    elif max(labels, default=0) == len(classes) and reduce is False:
        report.problems[kinds.LOOKS].append(
            f'{part.annotations} holds {min(labels)} to {max(labels)} for {len(classes)} classes, as with '
            'reduce_zero_label=True; with False, 0 is the first class'
        )
