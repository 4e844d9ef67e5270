"""Check a data set, split DOTA and STAR into patches, choose a few images, or hold some out."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from mmpeft.data.check import check_tree
from mmpeft.data.prepare import make_holdout, make_subset, split_data_set
from mmpeft.data.splitting import GRAY, Cut
from mmpeft.data.trees import TREES, tree_of
from mmpeft.mm.running.checking import check_config
from mmpeft.mm.running.cli import add_cfg_options, one_line_errors

PART = 'part of the data set, such as train; NAME=ANNOTATIONS:IMAGES, under ROOT, for one of your own'


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest='command', required=True)

    check = commands.add_parser('check', help='say what is missing or wrong; fails if anything is')
    check.add_argument('format', choices=TREES, nargs='?')
    check.add_argument('root', type=Path, nargs='?', help='folder of the data set')
    check.add_argument('--config', help='instead: judge all that a config reads, by its own loaders, classes and heads')
    add_cfg_options(check)
    check.add_argument('--part', nargs='+', default=(), help=f'{PART}; default: all')
    check.add_argument(
        '--classes', nargs='+', help='class names of your own data; for label maps, as many as there are'
    )
    check.add_argument('--decode', action='store_true', help='decode every image: slower, and finds damage inside')
    check.set_defaults(run=run_check)

    split = commands.add_parser('split', help='cut images into patches; started again, it goes on where it stopped')
    split.add_argument('format', choices=['dota', 'star'])
    split.add_argument('root', type=Path, help='folder of the data set')
    split.add_argument('out', type=Path, help='folder for PART/images and PART/annfiles')
    split.add_argument('--part', nargs='+', default=(), help=f'{PART}; default: all')
    split.add_argument('--join', metavar='NAME', help='put all parts into one, such as trainval')
    split.add_argument('--size', type=int, default=1024, help='side of the patches in px (default: 1024)')
    split.add_argument('--overlap', type=int, default=200, help='of neighbours in px (default: 200)')
    split.add_argument('--rates', type=float, nargs='+', default=[1.0], help='multi-scale: 0.5 1.0 1.5')
    fill = split.add_mutually_exclusive_group()
    fill.add_argument('--no-padding', action='store_true', help='leave patches of small images small')
    fill.add_argument('--padding', type=int, nargs=3, default=GRAY, help='blue, green, red (default: 104 116 124)')
    split.add_argument('--jobs', type=int, default=4, help='threads that write patches (default: 4)')
    split.set_defaults(run=run_split)

    subset = commands.add_parser('subset', help='write annotations of a few of the images')
    amount = subset.add_mutually_exclusive_group(required=True)
    amount.add_argument('--fraction', type=float, help='share of the images, such as 0.01')
    amount.add_argument('--shots', type=int, help='images for each class')
    subset.set_defaults(run=run_subset)

    holdout = commands.add_parser('holdout', help='write annotations of a held-out set, and of the rest to train on')
    holdout.add_argument('--fraction', type=float, default=0.02, help='share of the images (default: 0.02)')
    holdout.set_defaults(run=run_holdout)

    for command, out in ((subset, 'what to write, without an ending'), (holdout, 'folder for heldout and train')):
        command.add_argument('format', choices=TREES)
        command.add_argument('root', type=Path, help='folder of the data set')
        command.add_argument('out', type=Path, help=out)
        command.add_argument('--part', help=f'{PART}; default: the first')
        command.add_argument(
            '--group',
            metavar='REGEX',
            help='start of a name that images of one source share (default: of one patched image)',
        )
        command.add_argument('--seed', type=int, default=0, help='other seeds choose other images (default: 0)')
    args = parser.parse_args(argv)
    if args.command == 'check' and bool(args.config) == bool(args.root):
        check.error('give a format and a folder, or a config with --config')
    return args


def run_check(args: argparse.Namespace) -> None:
    if args.config:
        for line in check_config(args.config, args.cfg_options, args.decode):
            print(line, flush=True)
        return
    report = check_tree(args.format, args.root, tree_of(args.format, args.part, args.classes), args.decode)
    print(report)
    if report.problems:
        raise SystemExit(1)


def run_split(args: argparse.Namespace) -> None:
    padding = None if args.no_padding else tuple(args.padding)
    cut = Cut(args.size, args.overlap, tuple(args.rates), padding)
    for line in split_data_set(args.format, args.root, args.out, args.part, cut, args.join, args.jobs):
        print(line, flush=True)


def run_subset(args: argparse.Namespace) -> None:
    chosen = dict(part=args.part, fraction=args.fraction, shots=args.shots, group=args.group, seed=args.seed)
    print(make_subset(args.format, args.root, args.out, **chosen))


def run_holdout(args: argparse.Namespace) -> None:
    chosen = dict(part=args.part, fraction=args.fraction, group=args.group, seed=args.seed)
    for line in make_holdout(args.format, args.root, args.out, **chosen):
        print(line, flush=True)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    with one_line_errors():
        args.run(args)


if __name__ == '__main__':
    main()
