"""Score adapter files, soups and an ensemble with one config, on held-out and test images, clean and damaged."""

from functools import partial

from mmpeft.commands.dispatch import run_command

main = partial(run_command, 'score')

if __name__ == '__main__':
    main()
