"""Merge the adapters of a checkpoint into its weights and write it with a config that stock tools read."""

from functools import partial

from mmpeft.commands.dispatch import run_command

main = partial(run_command, 'merge')

if __name__ == '__main__':
    main()
