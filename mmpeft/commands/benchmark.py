"""Compare the time and the memory of methods with full fine-tuning, a frozen backbone, and themselves as published."""

import argparse
from pathlib import Path

import torch

from mmpeft.measuring import DTYPES, Setting
from mmpeft.mm.reports.benchmarking import BACKBONES, benchmark
from mmpeft.mm.running.cli import one_line_errors

METHODS = ['Mona', 'SSF', 'CVPT', 'LoRA:rank=16']

EXAMPLE = 'benchmark swin-t --methods Mona LoRA:rank=16 --size 384 384'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    default = Setting()
    parser.add_argument('backbone', nargs='?', default='swin-t', help=f'{", ".join(BACKBONES)}, or a config file')
    parser.add_argument('--methods', nargs='+', default=METHODS, help='names, with options as in CVPT:num_prompts=200')
    parser.add_argument('--size', nargs=2, type=int, default=default.size, metavar=('HEIGHT', 'WIDTH'))
    parser.add_argument('--batch', type=int, default=default.batch)
    parser.add_argument('--repeats', type=int, default=default.repeats)
    parser.add_argument('--dtype', choices=DTYPES, default=default.dtype, help='bf16: autocast')
    parser.add_argument('--channels-last', action='store_true')
    parser.add_argument('--recompute-ffn', action='store_true', help='each method with recompute_ffn, too')
    parser.add_argument('--compile', action='store_true', help='each method with compile, too')
    parser.add_argument('--profile', action='store_true', help='name the operations that take most of each step')
    parser.add_argument('--device', default=default.device)
    parser.add_argument('--threads', type=int, help="CPU threads (default: torch's)")
    parser.add_argument('--out', type=Path, help='folder for the tables as CSV and a picture')


@one_line_errors()
def run(args: argparse.Namespace) -> None:
    if args.threads:
        torch.set_num_threads(args.threads)
    names = ('batch', 'repeats', 'dtype', 'channels_last', 'device')
    setting = Setting(size=tuple(args.size), **{name: getattr(args, name) for name in names})
    flags = args.recompute_ffn, args.compile, args.profile
    print(benchmark(args.backbone, args.methods, setting, args.out, *flags))
