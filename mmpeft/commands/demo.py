"""Train Mona on a small data set that is made on the spot, and show what came out."""

import argparse
from pathlib import Path

from mmpeft.mm.running.cli import one_line_errors
from mmpeft.mm.running.demo import comparison, run_demo, summary
from mmpeft.shipped import CONFIGS

EXAMPLE = 'demo --compare'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    which = parser.add_mutually_exclusive_group()
    which.add_argument('--config', default=_config('mona'), help='a config of configs/demo')
    which.add_argument('--compare', action='store_true', help='the frozen base, Mona and full fine-tuning in turn')
    parser.add_argument('--work-dir', help='folder for everything written (default: work_dirs/demo/<config name>)')


@one_line_errors()
def run(args: argparse.Namespace) -> None:
    configs = [_config(name) for name in ('frozen', 'mona', 'full')]
    if not args.compare:
        print(f'\n{summary(run_demo(args.config, args.work_dir))}')
        return
    folders = [args.work_dir and str(Path(args.work_dir, Path(config).stem)) for config in configs]
    print(f'\n{comparison([run_demo(*each) for each in zip(configs, folders, strict=True)])}')


def _config(method: str) -> str:
    return str(CONFIGS / 'demo' / f'{method}_swin-micro_digits.py')
