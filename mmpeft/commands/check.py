"""Say what is missing or wrong in a data set, or in all that a config reads; fail if anything is."""

import argparse
from pathlib import Path

from mmpeft.data.check import check_tree
from mmpeft.data.trees import TREES, tree_of
from mmpeft.mm.running.checking import check_config
from mmpeft.mm.running.cli import PART, add_cfg_options, one_line_errors

EXAMPLE = 'check coco data/coco'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('format', choices=TREES, nargs='?')
    parser.add_argument('root', type=Path, nargs='?', help='folder of the data set')
    parser.add_argument('--config', help='instead: judge what a config reads, by its own loaders, classes and heads')
    add_cfg_options(parser)
    parser.add_argument('--part', nargs='+', default=(), help=f'{PART}; default: all')
    parser.add_argument(
        '--classes', nargs='+', help='class names of your own data; for label maps, as many as there are'
    )
    parser.add_argument('--decode', action='store_true', help='decode every image: slower, and finds damage inside')
    parser.set_defaults(refuse=parser.error)


@one_line_errors()
def run(args: argparse.Namespace) -> None:
    if bool(args.config) == bool(args.root):
        args.refuse('give a format and a folder, or a config with --config')
    if args.config:
        for line in check_config(args.config, args.cfg_options, args.decode):
            print(line, flush=True)
        return
    report = check_tree(args.format, args.root, tree_of(args.format, args.part, args.classes), args.decode)
    print(report)
    if report.problems:
        raise SystemExit(1)
