"""Train several runs of a config from one start, with sampled hyper-parameters, to make a soup of them."""

from functools import partial

from mmpeft.commands.dispatch import run_command

main = partial(run_command, 'sweep')

if __name__ == '__main__':
    main()
