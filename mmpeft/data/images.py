"""Sizes of image files, and whether they are whole, without decoding them where that can be told otherwise."""

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from PIL import Image, TiffImagePlugin
from tqdm import tqdm

SUFFIXES = ('.jpg', '.jpeg', '.png', '.tif', '.tiff', '.bmp')
ENDS = {'JPEG': b'\xff\xd9', 'PNG': b'IEND\xaeB`\x82'}
TAIL = 1024  # bytes at the end of a file in which its end mark is looked for: cameras write a little after it
TABLES = ((273, 279), (324, 325))  # TIFF's tags for where its strips or tiles begin, and how many bytes they take

Item = TypeVar('Item')


def find_images(folder: Path) -> dict[str, Path]:
    """The image files of a folder by name without ending, sorted.

    Raises:
        ValueError: Two files have one name, apart from their endings.
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in SUFFIXES and not path.name.startswith('.'):
            if path.stem in found:
                raise ValueError(f'{folder} holds {found[path.stem].name} and {path.name}: which of them is meant?')
            found[path.stem] = path
    return found


def image_size(path: Path) -> tuple[int, int]:
    """Width and height in px, from the head of the file.

    Raises:
        OSError: The file is missing or no image.
    """
    with Image.open(path) as image:
        return image.size


def damage(path: Path, decode: bool = False) -> str | None:
    """What is wrong with an image file, in a few words; None if nothing is.

    A file is taken as whole when its head can be read and its end is where it should be. One without an end mark that
    is known is decoded.

    Args:
        path: The file.
        decode: Decode every pixel; slower by a factor of about 20, and a large image takes memory.
    """
    if not path.is_file():
        return 'missing'
    try:
        with Image.open(path) as image:
            if decode or not _ends_well(image, path):
                image.load()
    except Exception as error:  # decoders raise OSError, SyntaxError, struct.error, and more
        return f'cannot be read ({" ".join(str(error).split()) or type(error).__name__})'
    return None


@contextmanager
def images_of_any_size() -> Iterator[None]:
    """Lift Pillow's limit of 179 megapixels, which takes large images for attacks."""
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def in_threads(work: Callable[[Item], Any], items: Iterable[Item], count: int, text: str, jobs: int = 8) -> Iterator:
    """The results of ``work``, in order, with a progress bar on a terminal."""
    with ThreadPoolExecutor(jobs) as pool, tqdm(total=count, desc=text, disable=None, leave=False) as progress:
        for result in pool.map(work, items):
            progress.update()
            yield result


def _ends_well(image: Image.Image, path: Path) -> bool:
    size = os.path.getsize(path)
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        parts = [(image.tag_v2.get(start), image.tag_v2.get(length)) for start, length in TABLES]
        return any(
            starts and lengths and max(map(sum, zip(starts, lengths, strict=True))) <= size for starts, lengths in parts
        )
    if image.format not in ENDS:
        return False
    with path.open('rb') as file:
        file.seek(max(0, size - TAIL))
        return ENDS[image.format] in file.read()
