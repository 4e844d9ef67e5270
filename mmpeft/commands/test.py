"""Test a checkpoint with a config of mmdet, mmseg or mmrotate."""

import argparse

from mmpeft.mm.running.cli import add_common_arguments, is_main_process, one_line_errors, set_local_rank
from mmpeft.mm.running.run import test

EXAMPLE = 'test mona_swin_coco.py work_dirs/mona/adapters_last.safetensors'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file or URL')
    parser.add_argument('--out', help='keep the predictions: a .pkl file (mmdet, mmrotate) or a folder (mmseg)')
    parser.add_argument('--show', action='store_true', help='show the predictions in windows')
    parser.add_argument('--show-dir', help='draw the predictions into this folder of the run in the work dir')
    parser.add_argument('--wait-time', type=float, default=2.0, help='how long a window stays, in seconds')
    parser.add_argument('--tta', action='store_true', help='test-time augmentation')
    add_common_arguments(parser)


@one_line_errors()
def run(args: argparse.Namespace) -> None:
    set_local_rank(args.local_rank)
    metrics = test(
        args.config,
        args.checkpoint,
        work_dir=args.work_dir,
        out=args.out,
        show=args.show,
        show_dir=args.show_dir,
        wait_time=args.wait_time,
        tta=args.tta,
        cfg_options=args.cfg_options,
        launcher=args.launcher,
    )
    if is_main_process():
        print(', '.join(f'{name} {value}' for name, value in metrics.items()) or 'No metrics: see the log.')
