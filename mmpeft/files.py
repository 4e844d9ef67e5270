"""Write a file so that it is there as a whole or not at all, and tell files by their content."""

import hashlib
import os
import re
import secrets
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO


def write_atomically(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    """Write ``path`` by a new file in its folder that then takes its name, both flushed to the disk.

    A process that dies in between leaves the file that was there before, and a hidden ``.<name>.<16 digits>`` beside
    it. A file of the name is replaced, and its mode kept: who must not overwrite looks first. Where the name is a link,
    what it points to is replaced.

    Args:
        path: The file to write; its folder is made if it is not there.
        write: Writes what the file shall hold into the open file that it is given.
    """
    path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f'.{_cut(path.name)}.{secrets.token_hex(8)}')
    # Never what is there already: not the file of another thread, nor a link that somebody put there.
    file = temporary.open('xb')
    try:
        with file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        _keep_mode(path, temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    _flush_folder(path.parent)


def _cut(name: str) -> str:
    """The name, short enough for a file system to take it with some more: most take 255 bytes."""
    return os.fsencode(name)[:200].decode(errors='ignore')


def _keep_mode(path: Path, new: Path) -> None:
    with suppress(OSError):  # there is no such file yet, or the file system has no modes
        new.chmod(stat.S_IMODE(path.stat().st_mode))


def _flush_folder(folder: Path) -> None:
    """Put the names of a folder on the disk, where the system can open a folder and the file system flush it."""
    if not hasattr(os, 'O_DIRECTORY'):
        return
    with suppress(OSError):  # as of network file systems; the file itself is written and flushed
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def remove_leftovers(folder: Path, pattern: str) -> None:
    """Delete what processes that died while they wrote files of ``pattern`` left in ``folder``.

    Args:
        folder: Where nobody else is writing such files now.
        pattern: A glob pattern for the names of the files themselves.
    """
    for path in folder.glob(f'.{pattern}.*'):
        if re.fullmatch(r'\.([0-9a-f]{16}|\d+)', path.suffix):  # older versions had the number of the process there
            path.unlink(missing_ok=True)


def hash_of(path: Path) -> str:
    """SHA-256 of the content of a file, as 64 hexadecimal digits."""
    hashed = hashlib.sha256()
    with path.open('rb') as file:
        while piece := file.read(1 << 20):
            hashed.update(piece)
    return hashed.hexdigest()
