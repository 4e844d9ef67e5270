"""Train a model from a config of mmdet, mmseg or mmrotate."""

import argparse
from collections.abc import Sequence

from mmpeft.mm.running.cli import add_common_arguments, one_line_errors, set_local_rank
from mmpeft.mm.running.run import train


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument('--amp', action='store_true', help='mixed precision (needs a GPU)')
    parser.add_argument('--auto-scale-lr', action='store_true', help='scale the learning rate with the batch')
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='go on from a checkpoint, or without a value from the last one in the work dir',
    )
    parser.add_argument('--tensorboard', action='store_true', help='write event files for TensorBoard, too')
    parser.add_argument('--wandb', action='store_true', help='send the log to Weights & Biases, too')
    add_common_arguments(parser)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    set_local_rank(args.local_rank)
    with one_line_errors():
        runner = train(
            args.config,
            work_dir=args.work_dir,
            amp=args.amp,
            auto_scale_lr=args.auto_scale_lr,
            resume=args.resume,
            tensorboard=args.tensorboard,
            wandb=args.wandb,
            cfg_options=args.cfg_options,
            launcher=args.launcher,
        )
    if runner.rank == 0:
        print(f'Trained for {runner.iter} iterations; log and checkpoints are in {runner.work_dir}')


if __name__ == '__main__':
    main()
