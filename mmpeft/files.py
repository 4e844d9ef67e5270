"""Write a file so that it is there as a whole or not at all, and tell files by their content."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO


def write_atomically(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    """Write ``path`` by a temporary file in its folder that then takes its name, both flushed to the disk.

    A process that dies in between leaves the file that was there before, and a hidden ``.<name>.<process id>`` beside
    it. A file of the name is replaced: who must not overwrite looks first.

    Args:
        path: The file to write; its folder is made if it is not there.
        write: Writes what the file shall hold into the open file that it is given.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f'.{path.name}.{os.getpid()}')
    try:
        with temporary.open('wb') as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    _flush_folder(path.parent)


def _flush_folder(folder: Path) -> None:
    """Put the names of a folder on the disk, where the system can open a folder."""
    if not hasattr(os, 'O_DIRECTORY'):
        return
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
        if path.suffix[1:].isdigit():
            path.unlink(missing_ok=True)


def hash_of(path: Path) -> str:
    """SHA-256 of the content of a file, as 64 hexadecimal digits."""
    hashed = hashlib.sha256()
    with path.open('rb') as file:
        while piece := file.read(1 << 20):
            hashed.update(piece)
    return hashed.hexdigest()
