"""Compare the time and the memory of methods with full fine-tuning, a frozen backbone, and themselves as published."""

from functools import partial

from mmpeft.commands.dispatch import run_command

main = partial(run_command, 'benchmark')

if __name__ == '__main__':
    main()
