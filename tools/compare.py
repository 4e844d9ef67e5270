"""Train several methods on one config, each with the rate that suits it and several seeds, and compare them."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from mmpeft.mm.running.cli import add_cfg_options, one_line_errors
from mmpeft.mm.running.many import LAUNCHERS
from mmpeft.mm.studies.study import compare


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
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
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = vars(parse_args(argv))
    with one_line_errors():
        text = compare(**args, tools=Path(__file__).resolve().parent)
    if text is not None:
        print(f'\n{text}')


if __name__ == '__main__':
    main()
