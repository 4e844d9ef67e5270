"""Run one image through several tasks that share a base, and draw the results side by side."""

import argparse
from collections.abc import Sequence

from mmpeft.mm.predicting import predict
from mmpeft.mm.running.cli import one_line_errors


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('image', help='image file')
    parser.add_argument('--bank', required=True, help='YAML file: the tasks, each with its config and adapter file')
    parser.add_argument('--task', nargs='+', metavar='NAME', help='tasks of the bank (default: all)')
    parser.add_argument('--out', help='picture to write (default: <name of the image>_tasks.png)')
    parser.add_argument('--device', default='cpu', help='cpu, cuda, cuda:1 and the like (default: cpu)')
    parser.add_argument('--min-score', type=float, default=0.3, help='draw boxes from this score on (default: 0.3)')
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    with one_line_errors():
        print(predict(args.image, args.bank, args.task, args.out, args.device, args.min_score))


if __name__ == '__main__':
    main()
