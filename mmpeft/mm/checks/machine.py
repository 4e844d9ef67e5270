"""What the machine must offer: a GPU, an empty folder, one to write to."""

import os
from pathlib import Path

import torch
from mmengine.config import Config

from mmpeft.mm.checks.errors import UserError
from mmpeft.mm.checks.reading import type_name


def check_free(out: Path | None) -> None:
    """Refuse a folder to write to that holds anything.

    Raises:
        UserError: It does.
    """
    if out is not None and out.exists() and any(out.iterdir()):
        raise UserError(f'{out} holds files already; name another folder, nothing is overwritten.')


def check_work_dir(path: str) -> None:
    """Refuse a work dir that cannot be made or written to.

    Raises:
        UserError: It is a file or below one, or may not be written to.
    """
    place = Path(path).expanduser().absolute()
    there = next(parent for parent in (place, *place.parents) if os.path.lexists(parent))
    if not there.is_dir():
        raise UserError(f'The work dir {path} cannot be made: {there} is no folder.')
    if not os.access(there, os.W_OK | os.X_OK):
        raise UserError(f'The work dir {path} cannot be written to: {there} is not yours to write.')


def check_device(cfg: Config) -> None:
    """Refuse mixed precision where mmengine has none.

    Raises:
        UserError: The config asks for it and there is no GPU.
    """
    kind = type_name((cfg.get('optim_wrapper') or {}).get('type'))
    if kind == 'AmpOptimWrapper' and not torch.cuda.is_available():
        raise UserError('Mixed precision (--amp, AmpOptimWrapper) needs a GPU, and none was found. Leave it out.')
