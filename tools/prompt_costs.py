"""Count what prompts of VPT and CVPT cost in a ViT against linear probing, and measure what attention they get."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from mmpeft.mm.reports.prompt_costs import COUNTS, prompt_costs
from mmpeft.mm.running.cli import one_line_errors


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('backbone', nargs='?', default='vit-b', help='vit-b, vit-l, or a config with a plain ViT')
    parser.add_argument('--prompts', nargs='+', type=int, default=COUNTS, help='numbers of prompts in a block')
    parser.add_argument('--size', nargs=2, type=int, default=(224, 224), metavar=('HEIGHT', 'WIDTH'))
    parser.add_argument('--batch', type=int, default=32, help='images that memory is told for')
    parser.add_argument(
        '--base', metavar='CONFIG', help='pretrained ViT and test images for the attention (default: random, noise)'
    )
    parser.add_argument(
        '--trained', nargs='+', default=(), help='trained VPTs, work dirs or CONFIG=CHECKPOINT, for the attention'
    )
    parser.add_argument('--images', type=int, default=4, help='images to look at attention with')
    parser.add_argument('--out', type=Path, help='folder for the tables, two CSV files and a picture')
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    with one_line_errors():
        options = {name: getattr(args, name) for name in ('batch', 'base', 'trained', 'images', 'out')}
        print(prompt_costs(args.prompts, args.backbone, tuple(args.size), **options))


if __name__ == '__main__':
    main()
