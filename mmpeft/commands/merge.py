"""Merge the adapters of a checkpoint into its weights and write it with a config that stock tools read."""

import argparse

from mmpeft.mm.running.cli import Options, one_line_errors
from mmpeft.mm.running.merging import merge_checkpoint

EXAMPLE = 'merge ssf_swin_coco.py work_dirs/ssf/adapters_last.safetensors merged.pth'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('config', help='config file that the checkpoint was trained with')
    parser.add_argument('checkpoint', help='checkpoint file or URL')
    parser.add_argument('out', help='file to write (.pth); its config is written beside it, with the ending .py')
    parser.add_argument(
        '--cfg-options', nargs='+', action=Options, metavar='KEY=VALUE', help='override keys of the config'
    )


@one_line_errors()
def run(args: argparse.Namespace) -> None:
    merged = merge_checkpoint(args.config, args.checkpoint, args.out, cfg_options=args.cfg_options)
    print(merged)
