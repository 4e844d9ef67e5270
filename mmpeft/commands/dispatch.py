"""``mmpeft COMMAND``: one entry for everything that the tools do, by a table."""

import argparse
import ast
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path

from mmpeft.version import __version__

# The file of this name beside this one has a docstring, an EXAMPLE, add_arguments(parser) and run(args).
COMMANDS = (
    'train',
    'test',
    'demo',
    'check',
    'split',
    'subset',
    'holdout',
    'merge',
    'convert',
    'predict',
    'report',
    'benchmark',
    'sweep',
    'compare',
    'soup',
    'score',
    'info',
)


def main(argv: Sequence[str] | None = None) -> None:
    """Run ``mmpeft COMMAND ...``."""
    name, *rest = (sys.argv[1:] if argv is None else argv) or ['--help']
    if name in ('-h', '--help'):
        print(overview())
    elif name == '--version':
        print(__version__)
    elif name in COMMANDS:
        run_command(name, rest)
    else:
        near = get_close_matches(name, COMMANDS)
        meant = f' Did you mean {" or ".join(near)}?' if near else ''
        print(f'error: mmpeft has no command {name!r}.{meant} Commands: {", ".join(COMMANDS)}.', file=sys.stderr)
        raise SystemExit(2)


def run_command(name: str, argv: Sequence[str] | None = None) -> None:
    """Parse the words behind a command, by default those of this process, and do what they say."""
    parser = parser_of(name)
    import_module(f'mmpeft.commands.{name}').run(parser.parse_args(argv))


def parser_of(name: str) -> argparse.ArgumentParser:
    """The one parser of a command, whether it runs as ``mmpeft NAME`` or as ``tools/NAME.py``.

    Raises:
        SystemExit: A library that the command needs is not installed.
    """
    try:
        command = import_module(f'mmpeft.commands.{name}')
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition('.')[0] == 'mmpeft':
            raise
        library = error.name.partition('.')[0]
        raise SystemExit(
            f'error: mmpeft {name} needs {library}, which is not installed. mmpeft info says how to install what is '
            'missing.'
        ) from error
    parser = argparse.ArgumentParser(
        prog=f'mmpeft {name}',
        description=command.__doc__,
        epilog=f'example:\n  mmpeft {command.EXAMPLE}',
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_arguments(parser)
    return parser


def overview() -> str:
    """What ``mmpeft --help`` prints: the commands, each with the first line of its file, which is not imported."""
    lines = ['usage: mmpeft COMMAND [-h] ...', '']
    for name in COMMANDS:
        text = Path(__file__).with_name(f'{name}.py').read_text(encoding='utf-8')
        lines.append(f'  {name:10} {ast.get_docstring(ast.parse(text))}')
    return '\n'.join([*lines, '', 'mmpeft COMMAND --help says more, with an example.'])
