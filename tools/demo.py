"""Train Mona on a small data set that is made on the spot, and show what came out."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from mmpeft.mm.running.cli import one_line_errors
from mmpeft.mm.running.demo import comparison, run_demo, summary

CONFIGS = Path(__file__).resolve().parent.parent / 'configs' / 'demo'


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    which = parser.add_mutually_exclusive_group()
    which.add_argument('--config', default=str(CONFIGS / 'mona_swin-micro_digits.py'), help='a config of configs/demo')
    which.add_argument('--compare', action='store_true', help='the frozen base, Mona and full fine-tuning in turn')
    parser.add_argument('--work-dir', help='folder for everything written (default: work_dirs/demo/<config name>)')
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    configs = [str(CONFIGS / f'{name}_swin-micro_digits.py') for name in ('frozen', 'mona', 'full')]
    with one_line_errors():
        if not args.compare:
            print(f'\n{summary(run_demo(args.config, args.work_dir))}')
            return
        folders = [args.work_dir and str(Path(args.work_dir, Path(config).stem)) for config in configs]
        print(f'\n{comparison([run_demo(*each) for each in zip(configs, folders, strict=True)])}')


if __name__ == '__main__':
    main()
