"""Run one image through several tasks that share a base, and draw the results side by side."""

import argparse

from mmpeft.mm.predicting import predict
from mmpeft.mm.running.cli import one_line_errors

EXAMPLE = 'predict harbour.jpg --bank bank.yaml --out harbour.png'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('image', help='image file')
    parser.add_argument('--bank', required=True, help='YAML file: the tasks, each with its config and adapter file')
    parser.add_argument('--task', nargs='+', metavar='NAME', help='tasks of the bank (default: all)')
    parser.add_argument('--out', help='picture to write (default: <name of the image>_tasks.png)')
    parser.add_argument('--device', default='cpu', help='cpu, cuda, cuda:1 and the like (default: cpu)')
    parser.add_argument('--min-score', type=float, default=0.3, help='draw boxes from this score on (default: 0.3)')


@one_line_errors()
def run(args: argparse.Namespace) -> None:
    print(predict(args.image, args.bank, args.task, args.out, args.device, args.min_score))
