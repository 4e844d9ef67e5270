"""Read a .pth file as data: tensors and plain values, never a pickle that runs code."""

import re
import struct
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from os import environ
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

FORCED, UNFORCED = 'TORCH_FORCE_WEIGHTS_ONLY_LOAD', 'TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD'


class UnreadableError(ValueError):
    """A file is missing, damaged, no checkpoint, or asks for more than tensors and plain values."""


def read_as_data(path: Path, map_location: Any = 'cpu', also: Sequence = (), mapped: bool = False) -> Any:
    """The contents of a file of ``torch.save``.

    Args:
        path: The file.
        map_location: As for ``torch.load``.
        also: Types to take beside tensors, Python's own and NumPy's, as for ``torch.serialization.safe_globals``.
        mapped: Leave the tensors in the file and read them when they are used; PyTorch's older format is read whole.

    Raises:
        UnreadableError: The file is missing or damaged, or asks for more than plain values.
    """
    check_start(path)
    _check_packing(path)
    try:
        with torch.serialization.safe_globals([*numpy_types(), *also]):
            return torch.load(
                path, map_location=map_location, weights_only=True, mmap=mapped and zipfile.is_zipfile(path)
            )
    except UnpicklingError as error:
        name = re.search(r'GLOBAL (\S+) ', str(error))
        what = f'It asks for {name[1]}.' if name else f'{str(error).splitlines()[-1]}'
        raise UnreadableError(
            f'{path} holds more than tensors and plain values, and no code is run from a checkpoint. {what}'
        ) from error
    except (RuntimeError, OSError, EOFError, ValueError, TypeError, LookupError, AssertionError) as error:
        raise UnreadableError(
            f'{path} is damaged or no checkpoint: {(str(error) or repr(error)).splitlines()[0]:.300}'
        ) from error


def check_start(path: Path) -> None:
    """Refuse what cannot be a checkpoint by a look at its first bytes.

    Raises:
        UnreadableError: The file is missing, or neither PyTorch nor safetensors writes such files.
    """
    if not path.is_file():
        raise UnreadableError(f'No checkpoint file {path}.')
    with path.open('rb') as file:
        start = file.read(16)
    if path.suffix != '.safetensors' and not start.startswith((b'PK\x03\x04', b'\x80')):
        raise UnreadableError(
            f'{path} is no checkpoint: its first bytes are {start!r}, and torch.save writes no such file.'
        )


def _check_packing(path: Path) -> None:
    """Refuse an archive that would unpack to more than it is: PyTorch stores what it saves as it is."""
    try:
        with zipfile.ZipFile(path) as archive:
            packed = [entry for entry in archive.infolist() if entry.compress_type != zipfile.ZIP_STORED]
            size = sum(entry.file_size for entry in archive.infolist())
    except (zipfile.BadZipFile, NotImplementedError, OSError, ValueError, EOFError, struct.error):
        return  # PyTorch's older format, or damaged: torch.load tells
    if packed or size > path.stat().st_size:
        raise UnreadableError(
            f'{path} is no checkpoint: it would unpack to {size:,} bytes, and torch.save compresses nothing.'
        )


@contextmanager
def weights_only() -> Iterator[None]:
    """While it lasts, every ``torch.load`` reads data alone, whatever it was asked for and the environment says."""
    before = {name: environ.pop(name, None) for name in (FORCED, UNFORCED)}
    environ[FORCED] = '1'
    try:
        yield
    finally:
        environ.pop(FORCED, None)
        environ.update({name: value for name, value in before.items() if value is not None})


def numpy_types() -> list:
    """NumPy's arrays and numbers, to be passed to ``torch.serialization.safe_globals``."""
    import numpy as np
    from numpy._core import multiarray  # NumPy 1 has it under this name, too, once it is imported

    arrays = [
        (getattr(multiarray, name), f'{module}.multiarray.{name}')
        for module in ('numpy.core', 'numpy._core')
        for name in ('_reconstruct', 'scalar')
    ]
    dtypes = {type(np.dtype(kind)) for kind in '?bBhHiIlLqQefdgFDSU'}
    return [np.ndarray, np.dtype, *arrays, *dtypes]
