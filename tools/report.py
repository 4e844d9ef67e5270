"""Print and write what configs cost and what their runs reached, or how alike trained models are, side by side."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from mmpeft.mm.reports.reporting import report
from mmpeft.mm.reports.similarity import similarity
from mmpeft.mm.running.cli import one_line_errors


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        'paths', nargs='+', help='work dirs of trainings, and config files (with --similarity: CONFIG=CHECKPOINT)'
    )
    parser.add_argument('--shape', nargs=2, type=int, metavar=('HEIGHT', 'WIDTH'), help="default: the library's usual")
    parser.add_argument('--metric', help='score of the runs (default: the first usual one in their logs)')
    parser.add_argument('--out', type=Path, help='folder for tables (Markdown and CSV) and pictures')
    parser.add_argument(
        '--similarity',
        action='store_true',
        help='compare features block by block, with the pretrained ones and in pairs',
    )
    parser.add_argument('--images', type=int, default=8, help='how many test images to compare them on (default: 8)')
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    with one_line_errors():
        if args.similarity:
            print(similarity(args.paths, args.images, args.out))
        else:
            print(report(args.paths, args.shape, args.metric, args.out))


if __name__ == '__main__':
    main()
