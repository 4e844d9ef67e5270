"""Label files of DOTA and STAR: a line an object, four corners, a class name and a difficulty."""

from pathlib import Path

import numpy as np

from mmpeft.data import kinds


def read_quads(path: Path | None) -> tuple[np.ndarray, list[str], list[int]]:
    """Corners, class names and difficulties of a label file; none where there is no file.

    Lines such as ``gsd:0.25`` say something about the image and are passed over. A missing difficulty is 0.

    Shape: the corners are ``(N, 8)``, x and y in px.

    Raises:
        ValueError: A line is neither; it names the line.
    """
    quads, classes, difficulties = [], [], []
    text = path.read_text(encoding='utf-8-sig') if path is not None and path.is_file() else ''
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split()
        if not words or is_header(line):
            continue
        try:
            quads.append([float(word) for word in words[:8]])
            classes.append(words[8])
            difficulties.append(int(words[9]) if len(words) > 9 else 0)
        except (ValueError, IndexError):
            raise ValueError(
                f'{path}, line {number}: expected x1 y1 x2 y2 x3 y3 x4 y4 class difficulty, got {line[:80]!r}.'
            ) from None
    return np.array(quads, np.float32).reshape(-1, 8), classes, difficulties


def loader_faults(path: Path, whole_images: bool) -> list[tuple[str, str]]:
    """What ``read_quads`` reads and mmrotate's loader does not, which takes every line for an object with a difficulty.

    Args:
        path: The label file.
        whole_images: Whether it is of a whole image, which is split first: then some lines may say something else.
    """
    text = path.read_text(encoding='utf-8')
    found = [(kinds.ENCODING, f'{path.name} begins with a byte order mark')] if text.startswith('\ufeff') else []
    lines = text.removeprefix('\ufeff').splitlines()
    short = [line for line in lines if line.strip() and not is_header(line) and len(line.split()) < 10]
    if short:
        found.append((kinds.LACKING_KEY, f'difficulty in {len(short)} lines of {path.name}'))
    strange = [line for line in lines if not line.strip() or is_header(line)]
    if strange and not whole_images:
        where = f'{path.name} ({len(strange)} lines, such as {strange[0][:40]!r})'
        found.append((kinds.UNREADABLE_ANNOTATION, where))
    elif any(map(str.strip, strange)):
        found.append((kinds.HEADER, path.name))
    return found


def is_header(line: str) -> bool:
    """Whether a line says something about the image, as ``imagesource:GoogleEarth`` does."""
    return ':' in line.split()[0]
