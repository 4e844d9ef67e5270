"""Turn a checkpoint of the authors of Mona, STAR-MMRotate, SSF or CVPT into a base and an adapter file."""

from functools import partial

from mmpeft.commands.dispatch import run_command

main = partial(run_command, 'convert')

if __name__ == '__main__':
    main()
