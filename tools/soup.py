"""Mix the weights of several runs from one start into one model, chosen on held-out images."""

from functools import partial

from mmpeft.commands.dispatch import run_command

main = partial(run_command, 'soup')

if __name__ == '__main__':
    main()
