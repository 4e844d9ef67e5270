"""Train a model from a config of mmdet, mmseg or mmrotate."""

import argparse

from mmpeft.mm.running.cli import add_common_arguments, one_line_errors, set_local_rank
from mmpeft.mm.running.run import train

EXAMPLE = 'train mona_swin_coco.py --work-dir work_dirs/mona --amp'


def add_arguments(parser: argparse.ArgumentParser) -> None:
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


@one_line_errors()
def run(args: argparse.Namespace) -> None:
    set_local_rank(args.local_rank)
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
