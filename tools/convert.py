"""Turn a checkpoint of the authors of Mona, STAR-MMRotate, SSF or CVPT into a base and an adapter file."""

import argparse
from collections.abc import Sequence

from mmpeft.mm.running.cli import Options, one_line_errors
from mmpeft.mm.running.converting import convert_checkpoint


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file of the same model with the adapters of mmpeft')
    parser.add_argument('checkpoint', help="the authors' checkpoint, a file or URL")
    parser.add_argument('out', help='beginning of the files to write, <out>_base and <out>_adapters, or a folder')
    parser.add_argument('--ema', action='store_true', help='take the averaged weights of a file that holds both')
    parser.add_argument(
        '--cfg-options', nargs='+', action=Options, metavar='KEY=VALUE', help='override keys of the config'
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    with one_line_errors():
        converted = convert_checkpoint(
            args.config, args.checkpoint, args.out, ema=args.ema, cfg_options=args.cfg_options
        )
    print(converted)


if __name__ == '__main__':
    main()
