"""Print and write what configs cost and what their runs reached, or how alike trained models are, side by side."""

from functools import partial

from mmpeft.commands.dispatch import run_command

main = partial(run_command, 'report')

if __name__ == '__main__':
    main()
