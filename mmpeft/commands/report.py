"""Print and write what configs cost and what their runs reached, or how alike trained models are, side by side."""

import argparse
from pathlib import Path

from mmpeft.mm.reports.reporting import report
from mmpeft.mm.reports.similarity import similarity
from mmpeft.mm.running.cli import one_line_errors

EXAMPLE = 'report mona_swin_coco.py work_dirs/mona --out work_dirs/report'


def add_arguments(parser: argparse.ArgumentParser) -> None:
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


@one_line_errors()
def run(args: argparse.Namespace) -> None:
    if args.similarity:
        print(similarity(args.paths, args.images, args.out))
    else:
        print(report(args.paths, args.shape, args.metric, args.out))
