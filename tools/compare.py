"""Train several methods on one config, each with the rate that suits it and several seeds, and compare them."""

from functools import partial

from mmpeft.commands.dispatch import run_command

main = partial(run_command, 'compare')

if __name__ == '__main__':
    main()
