"""The check of data by a config: its own loaders, classes and heads, as training asks before it builds anything."""

from collections.abc import Iterator, Mapping
from typing import Any

from mmpeft.data.check import verdict
from mmpeft.mm.checks import UserError, check_files, check_parts, read_config, register_library
from mmpeft.mm.running.holdout import hold_out

SPLITS = ('train', 'val', 'test')


def check_config(config: str, options: Mapping[str, Any] | None = None, decode: bool = False) -> Iterator[str]:
    """Look at every annotation and every image that a config reads.

    Args:
        config: A config file of mmdet, mmseg or mmrotate.
        options: Keys of the config to override.
        decode: Decode every image, instead of reading its head and its end.

    Yields:
        What was found, a data set at a time, and last how many problems there are.

    Raises:
        UserError: The config or its classes cannot be used, files are missing, or something was found.
    """
    cfg = read_config(config, options)
    register_library(cfg.get('default_scope'))
    hold_out(cfg)
    splits = [split for split in SPLITS if cfg.get(f'{split}_dataloader')]
    check_files(cfg, *splits)
    yield f'Judged as they are read by the loaders of {config}.'
    problems = 0
    for report in check_parts(cfg, splits, decode):
        problems += report.count
        yield str(report)
    if problems:
        raise UserError(verdict(problems))
    yield verdict(0)
