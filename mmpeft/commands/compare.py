"""Train several methods on one config, each with the rate that suits it and several seeds, and compare them."""

import argparse

from mmpeft.mm.running.cli import add_cfg_options, one_line_errors
from mmpeft.mm.running.many import LAUNCHERS
from mmpeft.mm.studies.study import compare
from mmpeft.shipped import TOOLS

EXAMPLE = 'compare CONFIG --methods Mona SSF LoRA:rank=16 Full Frozen --lrs 3e-4 1e-3 3e-3 --out work_dirs/compare'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('config', help='config file, adapted or not: its stock backbone is taken')
    parser.add_argument('--methods', nargs='+', required=True, help='names, with options as in LoRA:rank=16')
    parser.add_argument('--out', required=True, help='folder for everything; given again, it goes on')
    parser.add_argument('--seeds', type=int, default=3, help='runs of each method with its rate (default: 3)')
    parser.add_argument(
        '--lrs',
        type=float,
        nargs='+',
        help="learning rates to choose from (default: the config's / 3, itself, 3 times)",
    )
    parser.add_argument(
        '--fractions', type=float, nargs='+', default=[1.0], help='shares of the training images (default: 1)'
    )
    parser.add_argument(
        '--launcher',
        choices=LAUNCHERS,
        default='local',
        help='train here (local), print commands, or write a script for several GPUs or for sbatch',
    )
    parser.add_argument('--jobs', type=int, default=1, help='local: runs at a time (default: 1)')
    parser.add_argument('--gpus', type=int, default=1, help='torchrun and slurm: GPUs a run (default: 1)')
    parser.add_argument('--partition', default='', help="slurm: the cluster's partition")
    add_cfg_options(parser)


@one_line_errors()
def run(args: argparse.Namespace) -> None:
    text = compare(**vars(args), tools=TOOLS)
    if text is not None:
        print(f'\n{text}')
