"""Score adapter files, soups and an ensemble with one config, on held-out and test images, clean and damaged."""

import argparse

from mmpeft.mm.running.cli import Options, one_line_errors
from mmpeft.mm.soups.comparing import SPLITS, compare

EXAMPLE = 'score work_dirs/sweep/run_00.py greedy.safetensors work_dirs/sweep/run_*/ --out scores.md --corrupt'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('config', help='config file of the runs')
    parser.add_argument('files', nargs='+', help='adapter files, checkpoints, or work dirs')
    parser.add_argument('--out', required=True, help='table to write (.md)')
    parser.add_argument('--ensemble', nargs='+', default=(), metavar='FILE', help='average the predictions of these')
    parser.add_argument('--splits', nargs='+', choices=SPLITS, default=[*SPLITS], help='default: both')
    parser.add_argument('--corrupt', action='store_true', help='blurred, noisy and JPEG-compressed images, too')
    parser.add_argument('--metric', help='score, higher is better (default: the first of the usual ones)')
    parser.add_argument(
        '--cfg-options', nargs='+', action=Options, metavar='KEY=VALUE', help='override keys of the config'
    )


@one_line_errors()
def run(args: argparse.Namespace) -> None:
    print(compare(**vars(args)))
