"""Merge the adapters of a checkpoint into its weights and write it with a config that stock tools read."""

import argparse
from collections.abc import Sequence

from mmpeft.mm.running.cli import Options, one_line_errors
from mmpeft.mm.running.merging import merge_checkpoint


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file that the checkpoint was trained with')
    parser.add_argument('checkpoint', help='checkpoint file or URL')
    parser.add_argument('out', help='file to write (.pth); its config is written beside it, with the ending .py')
    parser.add_argument(
        '--cfg-options', nargs='+', action=Options, metavar='KEY=VALUE', help='override keys of the config'
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    with one_line_errors():
        merged = merge_checkpoint(args.config, args.checkpoint, args.out, cfg_options=args.cfg_options)
    print(merged)


if __name__ == '__main__':
    main()
