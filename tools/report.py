"""Print and write what configs cost and what their runs reached, side by side."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from mmpeft.mm.cli import one_line_errors
from mmpeft.mm.reporting import report


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('paths', nargs='+', help='config files, and work dirs of trainings')
    parser.add_argument('--shape', nargs=2, type=int, metavar=('HEIGHT', 'WIDTH'), help="default: the library's usual")
    parser.add_argument('--metric', help='score of the runs (default: the first usual one in their logs)')
    parser.add_argument('--out', type=Path, help='folder for report.md, report.csv and pictures')
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    with one_line_errors():
        print(report(args.paths, args.shape, args.metric, args.out))


if __name__ == '__main__':
    main()
