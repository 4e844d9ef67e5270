"""Measure memory and switching of tasks in a bank against as many models of their own, on Linux."""

import argparse
from collections.abc import Sequence

from mmpeft.mm.reports.bank_costs import bank_costs
from mmpeft.mm.running.cli import one_line_errors


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config with adapters; its base and tasks get random weights')
    parser.add_argument('--tasks', nargs='+', type=int, default=[1, 4, 8], help='numbers of tasks (default: 1 4 8)')
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    with one_line_errors():
        print(bank_costs(args.config, args.tasks))


if __name__ == '__main__':
    main()
