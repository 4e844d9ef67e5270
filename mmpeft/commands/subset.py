"""Write annotations of a few of the images of a data set."""

import argparse

from mmpeft.data.prepare import make_subset
from mmpeft.mm.running.cli import add_choice_of_images, one_line_errors

EXAMPLE = 'subset coco data/coco data/coco/annotations/one_percent --fraction 0.01'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    amount = parser.add_mutually_exclusive_group(required=True)
    amount.add_argument('--fraction', type=float, help='share of the images, such as 0.01')
    amount.add_argument('--shots', type=int, help='images for each class')
    add_choice_of_images(parser, 'what to write, without an ending')


@one_line_errors()
def run(args: argparse.Namespace) -> None:
    chosen = dict(part=args.part, fraction=args.fraction, shots=args.shots, group=args.group, seed=args.seed)
    print(make_subset(args.format, args.root, args.out, **chosen))
