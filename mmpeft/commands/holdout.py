"""Write annotations of a held-out set, on which soups are chosen, and of the rest to train on."""

import argparse

from mmpeft.data.prepare import make_holdout
from mmpeft.mm.running.cli import add_choice_of_images, one_line_errors

EXAMPLE = 'holdout coco data/coco data/coco/soup'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--fraction', type=float, default=0.02, help='share of the images (default: 0.02)')
    add_choice_of_images(parser, 'folder for heldout and train')


@one_line_errors()
def run(args: argparse.Namespace) -> None:
    chosen = dict(part=args.part, fraction=args.fraction, group=args.group, seed=args.seed)
    for line in make_holdout(args.format, args.root, args.out, **chosen):
        print(line, flush=True)
