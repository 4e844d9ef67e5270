"""Train Mona on a small data set that is made on the spot, and show what came out."""

from functools import partial

from mmpeft.commands.dispatch import run_command

main = partial(run_command, 'demo')

if __name__ == '__main__':
    main()
