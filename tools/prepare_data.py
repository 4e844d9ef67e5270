"""Check a data set, split DOTA and STAR into patches, choose a few images, or hold some out."""

import argparse
from collections.abc import Sequence

from mmpeft.commands import check, holdout, split, subset


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(required=True)
    for name, command in dict(check=check, split=split, subset=subset, holdout=holdout).items():
        own = commands.add_parser(name, help=command.__doc__, description=command.__doc__)
        command.add_arguments(own)
        own.set_defaults(run=command.run)
    args = parser.parse_args(argv)
    args.run(args)


if __name__ == '__main__':
    main()
