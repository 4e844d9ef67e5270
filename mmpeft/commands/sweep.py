"""Train several runs of a config from one start, with sampled hyper-parameters, to make a soup of them."""

import argparse

from mmpeft.mm.running.cli import Options, one_line_errors
from mmpeft.mm.running.many import LAUNCHERS
from mmpeft.mm.soups.sweeping import sweep
from mmpeft.shipped import TOOLS

EXAMPLE = 'sweep mona_swin_coco.py --runs 8 --out work_dirs/sweep --cfg-options heldout.ann_file=heldout.json'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('config', help='config file whose heldout names the images that no run may train on')
    parser.add_argument('--runs', type=int, required=True, help='how many')
    parser.add_argument('--out', required=True, help='folder for the start file, the configs and the runs')
    parser.add_argument('--seed', type=int, default=0, help='of the starting values and the samples (default: 0)')
    bounds = dict(type=float, nargs=2, metavar=('LOW', 'HIGH'))
    parser.add_argument('--lr', **bounds, help="learning rate (default: the config's / 3 to 3 times)")
    parser.add_argument('--decay', **bounds, help="weight decay (default: the config's / 10 to 10 times)")
    parser.add_argument(
        '--launcher',
        choices=LAUNCHERS,
        default='local',
        help='train here in turn (local), print commands, or write a script for several GPUs or for sbatch',
    )
    parser.add_argument('--gpus', type=int, default=1, help='torchrun and slurm: GPUs a run (default: 1)')
    parser.add_argument('--partition', default='', help="slurm: the cluster's partition")
    parser.add_argument(
        '--cfg-options', nargs='+', action=Options, metavar='KEY=VALUE', help='override keys of the config'
    )


@one_line_errors()
def run(args: argparse.Namespace) -> None:
    sweep(**vars(args), tools=TOOLS)
