"""Train a model from a config of mmdet, mmseg or mmrotate."""

from functools import partial

from mmpeft.commands.dispatch import run_command

main = partial(run_command, 'train')

if __name__ == '__main__':
    main()
