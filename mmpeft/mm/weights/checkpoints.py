"""Read checkpoints as data: tensors and plain values, never a pickle that runs code.

mmengine's own reader falls back to a full pickle when the careful one refuses a file.
"""

import os
import re
import struct
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from urllib.parse import urlparse

import torch
from mmengine.config import Config
from mmengine.dist import barrier, get_rank
from mmengine.logging import HistoryBuffer, print_log
from mmengine.runner import CheckpointLoader

from mmpeft.mm.checks import UserError
from mmpeft.plain_types import numpy_types

RESUME_KEYS = ('meta', 'message_hub', 'optimizer')
STATISTICS = ('min', 'max', 'current', 'mean')


@contextmanager
def checkpoints_as_data(cfg: Config | None = None) -> Iterator[None]:
    """While it lasts, mmengine and the libraries on it read every checkpoint as data only.

    Args:
        cfg: The config in use, if there is one; errors name its keys.
    """

    def load_from_local(filename: str, map_location: Any = None) -> dict:
        return read_checkpoint(filename, map_location)

    def load_from_http(filename: str, map_location: Any = None, **_: Any) -> dict:
        key = None if cfg is None else _key_of(cfg.model, filename, 'model')
        return read_checkpoint(download(filename, key), map_location)

    # Whatever else calls torch.load, mmengine's other schemes included, is held to the same.
    before, schemes = os.environ.get('TORCH_FORCE_WEIGHTS_ONLY_LOAD'), dict(CheckpointLoader._schemes)
    os.environ['TORCH_FORCE_WEIGHTS_ONLY_LOAD'] = '1'
    CheckpointLoader.register_scheme('', load_from_local, force=True)
    CheckpointLoader.register_scheme(('http://', 'https://'), load_from_http, force=True)
    try:
        yield
    finally:
        CheckpointLoader._schemes.clear()
        CheckpointLoader._schemes.update(schemes)
        if before is None:
            del os.environ['TORCH_FORCE_WEIGHTS_ONLY_LOAD']
        else:
            os.environ['TORCH_FORCE_WEIGHTS_ONLY_LOAD'] = before


def read_checkpoint(path: str | Path, map_location: Any = 'cpu') -> dict:
    """The contents of a checkpoint file.

    Raises:
        UserError: The file is missing or damaged, has no weights, or asks for more than plain values.
    """
    path = Path(path).expanduser()
    check_file(path)
    _check_packing(path)
    try:
        with torch.serialization.safe_globals(_plain_types()):
            checkpoint = torch.load(path, map_location=map_location, weights_only=True)
    except UnpicklingError as error:
        name = re.search(r'GLOBAL (\S+) ', str(error))
        what = f'It asks for {name[1]}.' if name else f'{str(error).splitlines()[-1]}'
        raise UserError(
            f'{path} holds more than tensors and plain values, and no code is run from a checkpoint. {what}'
        ) from error
    except (RuntimeError, OSError, EOFError, ValueError, KeyError, IndexError, AssertionError) as error:
        raise UserError(f'{path} is damaged or no checkpoint: {(str(error) or repr(error)).splitlines()[0]}') from error
    if not _holds_weights(checkpoint):
        raise UserError(f'{path} is no checkpoint: it holds {_describe(checkpoint)} and no weights.')
    return checkpoint


def check_file(path: str | Path) -> None:
    """Refuse what cannot be a checkpoint by a look at its first bytes.

    Raises:
        UserError: The file is missing, or neither PyTorch nor safetensors writes such files.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise UserError(f'No checkpoint file {path}.')
    with path.open('rb') as file:
        start = file.read(16)
    if path.suffix != '.safetensors' and not start.startswith((b'PK\x03\x04', b'\x80')):
        raise UserError(f'{path} is no checkpoint: its first bytes are {start!r}, and torch.save writes no such file.')


def _check_packing(path: Path) -> None:
    """Refuse an archive that would unpack to more than it is: PyTorch stores what it saves as it is."""
    try:
        with zipfile.ZipFile(path) as archive:
            packed = [entry for entry in archive.infolist() if entry.compress_type != zipfile.ZIP_STORED]
            size = sum(entry.file_size for entry in archive.infolist())
    except (zipfile.BadZipFile, NotImplementedError, OSError, ValueError, EOFError, struct.error):
        return  # PyTorch's older format, or damaged: torch.load tells
    if packed or size > path.stat().st_size:
        raise UserError(
            f'{path} is no checkpoint: it would unpack to {size:,} bytes, and torch.save compresses nothing.'
        )


def check_resumable(path: str | Path) -> dict:
    """The contents of a checkpoint from which a run can go on; a file that holds weights only is refused.

    Raises:
        UserError: The file cannot be read, or lacks what a run needs to go on.
    """
    if Path(path).suffix == '.safetensors':
        raise UserError(
            f'{path} holds weights only: training cannot go on from it. To start from them, use --cfg-options '
            f'load_from={path}.'
        )
    checkpoint = read_checkpoint(path)
    missing = [key for key in RESUME_KEYS if key not in checkpoint]
    if missing:
        raise UserError(
            f'{path} holds no {", ".join(missing)}: training cannot go on from it. '
            f'To start from its weights, use --cfg-options load_from={path}.'
        )
    return checkpoint


def download(url: str, key: str | None = None, name: str | None = None) -> Path:
    """The local copy of a file: torch's cache, into which the first process fetches it if it is not there.

    Args:
        url: Where the file is.
        key: The key of the config that names it, for the message.
        name: Its name in the cache; by default that of the URL.

    Raises:
        UserError: The file cannot be fetched; it says where to put it by hand.
    """
    path = Path(torch.hub.get_dir(), 'checkpoints', name or Path(urlparse(url).path).name)
    if get_rank() == 0:
        _fetch(url, path, key)
    barrier()
    _fetch(url, path, key)  # a machine that does not share the first one's cache
    return path


def _fetch(url: str, path: Path, key: str | None) -> None:
    if path.exists():
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        print_log(f'Downloading {url} to {path}', 'current')
        torch.hub.download_url_to_file(url, str(path), progress=os.isatty(2))
    except (OSError, HTTPException) as error:
        option = f', or name a local file with --cfg-options {key}=FILE' if key else ''
        raise UserError(f'Cannot download {url} ({error}). Put the file at {path}{option}.') from error


def _plain_types() -> list:
    """What an mmengine checkpoint holds besides tensors and Python's types: numpy values, log histories."""
    return [HistoryBuffer, *numpy_types(), (_statistic, 'builtins.getattr')]


def _statistic(owner: Any, name: str) -> Any:
    """Stands in for the ``getattr`` by which a pickled HistoryBuffer names its statistics."""
    if owner is not HistoryBuffer or name not in STATISTICS:
        raise UnpicklingError(f'Unsupported: GLOBAL getattr of {name!r}')
    return getattr(owner, name)


def _holds_weights(checkpoint: Any) -> bool:
    if not isinstance(checkpoint, Mapping):
        return False
    inner = [value for value in checkpoint.values() if isinstance(value, Mapping)]
    return any(torch.is_tensor(value) for part in (checkpoint, *inner) for value in part.values())


def _describe(checkpoint: Any) -> str:
    if isinstance(checkpoint, Mapping):
        return f'a dict of {", ".join(map(str, list(checkpoint)[:5])) or "nothing"}'
    return f'a {type(checkpoint).__name__}'


def _key_of(node: Any, value: Any, path: str = '') -> str | None:
    """The dotted key under which a config holds ``value``, as ``--cfg-options`` takes it."""
    if node == value and path:
        return path
    items = node.items() if isinstance(node, dict) else enumerate(node if isinstance(node, list | tuple) else ())
    found = (_key_of(child, value, f'{path}.{name}' if path else str(name)) for name, child in items)
    return next((key for key in found if key), None)
