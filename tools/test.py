"""Test a checkpoint with a config of mmdet, mmseg or mmrotate."""

from functools import partial

from mmpeft.commands.dispatch import run_command

main = partial(run_command, 'test')

if __name__ == '__main__':
    main()
