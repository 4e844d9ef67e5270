"""What the tools share: common flags, and one line instead of a traceback for a user's mistake."""

import argparse
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmengine.config import DictAction
from mmengine.dist import is_main_process as is_main_process

from mmpeft.data.trees import TREES
from mmpeft.mm.checks import UserError

PART = 'part of the data set, such as train; NAME=ANNOTATIONS:IMAGES, under ROOT, for one of your own'


class Options(DictAction):
    """mmengine's ``key=value`` pairs; a word without ``=`` is a usage error."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: Any, values: Any, option_string: Any = None) -> None:
        for value in values:
            if '=' not in value:
                parser.error(f'{option_string} takes key=value pairs, got {value!r}.')
        super().__call__(parser, namespace, values, option_string)


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags that training and testing have in common; they are those of the OpenMMLab tools."""
    parser.add_argument('--work-dir', help='folder for logs and results (default: work_dirs/<config name>)')
    add_cfg_options(parser)
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='starter of several processes',
    )
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)


def add_cfg_options(parser: argparse.ArgumentParser) -> None:
    """Add the flag that overrides keys of a config."""
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=Options,
        metavar='KEY=VALUE',
        help='override keys of the config, such as train_dataloader.batch_size=4; lists as key="[a,b]"',
    )


def add_choice_of_images(parser: argparse.ArgumentParser, out: str) -> None:
    """Add what commands that choose images have in common; ``out`` says what they write."""
    parser.add_argument('format', choices=TREES)
    parser.add_argument('root', type=Path, help='folder of the data set')
    parser.add_argument('out', type=Path, help=out)
    parser.add_argument('--part', help=f'{PART}; default: the first')
    parser.add_argument(
        '--group',
        metavar='REGEX',
        help='start of a name that images of one source share (default: of one patched image)',
    )
    parser.add_argument('--seed', type=int, default=0, help='other seeds choose other images (default: 0)')


def set_local_rank(rank: int) -> None:
    """Tell mmengine which process of this machine this is, unless the launcher has done so."""
    os.environ.setdefault('LOCAL_RANK', str(rank))


@contextmanager
def one_line_errors() -> Iterator[None]:
    """End the program with one line on stderr when the user can put it right; let other errors pass."""
    try:
        yield
    except Exception as error:
        message = explain(error)
        if message is None:
            raise
        raise SystemExit(f'error: {message}') from error


def explain(error: BaseException | None) -> str | None:
    """The line for the user that an error carries, however often it was raised anew; None if it is a bug."""
    seen = set()  # `raise error from error` is its own cause
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, UserError) or _raised_by_mmpeft(error):
            return ' '.join(str(error).split())
        unknown = re.search(r'Failed to get (mmpeft\.\w+)|(mmpeft\.\w+) is not in the', str(error))
        if unknown:
            return f'The config names {unknown[1] or unknown[2]}, which mmpeft does not have.'
        # mmengine raises some errors of hooks anew, `from None`: the first one is still their context.
        error = error.__cause__ or (error.__context__ if error.__suppress_context__ else None)
    return None


def _raised_by_mmpeft(error: BaseException) -> bool:
    """Whether mmpeft's own code refused a value; a TypeError or KeyError, as for None + 1, is a bug."""
    if not isinstance(error, ValueError | RuntimeError | OSError):
        return False
    last = error.__traceback__
    if last is None:  # a cause that was made and never raised
        return False
    while last.tb_next is not None:
        last = last.tb_next
    return last.tb_frame.f_globals.get('__name__', '').startswith('mmpeft.')
