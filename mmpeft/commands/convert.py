"""Turn a checkpoint of the authors of Mona, STAR-MMRotate, SSF or CVPT into a base and an adapter file."""

import argparse

from mmpeft.mm.running.cli import Options, one_line_errors
from mmpeft.mm.running.converting import convert_checkpoint

EXAMPLE = 'convert mona_swin_coco.py mona_coco.pth converted/mona'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('config', help='config file of the same model with the adapters of mmpeft')
    parser.add_argument('checkpoint', help="the authors' checkpoint, a file or URL")
    parser.add_argument('out', help='beginning of the files to write, <out>_base and <out>_adapters, or a folder')
    parser.add_argument('--ema', action='store_true', help='take the averaged weights of a file that holds both')
    parser.add_argument(
        '--cfg-options', nargs='+', action=Options, metavar='KEY=VALUE', help='override keys of the config'
    )


@one_line_errors()
def run(args: argparse.Namespace) -> None:
    converted = convert_checkpoint(args.config, args.checkpoint, args.out, ema=args.ema, cfg_options=args.cfg_options)
    print(converted)
