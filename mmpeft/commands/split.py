"""Cut the images of DOTA or STAR into patches; started again, it goes on where it stopped."""

import argparse
from pathlib import Path

from mmpeft.data.prepare import split_data_set
from mmpeft.data.splitting import GRAY, Cut
from mmpeft.mm.running.cli import PART, one_line_errors

EXAMPLE = 'split dota data/DOTA data/split_ss_dota --part train val --join trainval'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('format', choices=['dota', 'star'])
    parser.add_argument('root', type=Path, help='folder of the data set')
    parser.add_argument('out', type=Path, help='folder for PART/images and PART/annfiles')
    parser.add_argument('--part', nargs='+', default=(), help=f'{PART}; default: all')
    parser.add_argument('--join', metavar='NAME', help='put all parts into one, such as trainval')
    parser.add_argument('--size', type=int, default=1024, help='side of the patches in px (default: 1024)')
    parser.add_argument('--overlap', type=int, default=200, help='of neighbours in px (default: 200)')
    parser.add_argument('--rates', type=float, nargs='+', default=[1.0], help='multi-scale: 0.5 1.0 1.5')
    fill = parser.add_mutually_exclusive_group()
    fill.add_argument('--no-padding', action='store_true', help='leave patches of small images small')
    fill.add_argument('--padding', type=int, nargs=3, default=GRAY, help='blue, green, red (default: 104 116 124)')
    parser.add_argument('--jobs', type=int, default=4, help='threads that write patches (default: 4)')


@one_line_errors()
def run(args: argparse.Namespace) -> None:
    padding = None if args.no_padding else tuple(args.padding)
    cut = Cut(args.size, args.overlap, tuple(args.rates), padding)
    for line in split_data_set(args.format, args.root, args.out, args.part, cut, args.join, args.jobs):
        print(line, flush=True)
