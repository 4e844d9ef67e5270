"""Test a checkpoint with a config of mmdet, mmseg or mmrotate."""

import argparse
from collections.abc import Sequence

from mmengine.dist import is_main_process

from mmpeft.mm.running.cli import add_common_arguments, one_line_errors, set_local_rank
from mmpeft.mm.running.run import test


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file or URL')
    parser.add_argument('--out', help='keep the predictions: a .pkl file (mmdet, mmrotate) or a folder (mmseg)')
    parser.add_argument('--show', action='store_true', help='show the predictions in windows')
    parser.add_argument('--show-dir', help='draw the predictions into this folder of the run in the work dir')
    parser.add_argument('--wait-time', type=float, default=2.0, help='how long a window stays, in seconds')
    parser.add_argument('--tta', action='store_true', help='test-time augmentation')
    add_common_arguments(parser)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    set_local_rank(args.local_rank)
    with one_line_errors():
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


if __name__ == '__main__':
    main()
