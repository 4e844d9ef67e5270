"""Run one image through several tasks that share a base, and draw the results side by side."""

from functools import partial

from mmpeft.commands.dispatch import run_command

main = partial(run_command, 'predict')

if __name__ == '__main__':
    main()
