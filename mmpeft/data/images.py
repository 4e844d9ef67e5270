"""What mmcv will make of image files, without decoding them where that can be told otherwise."""

import os
import re
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
from PIL import Image, TiffImagePlugin
from tqdm import tqdm

SUFFIXES = ('.jpg', '.jpeg', '.png', '.tif', '.tiff', '.bmp')
ENDS = {'JPEG': b'\xff\xd9', 'PNG': b'IEND\xaeB`\x82'}
TAIL = 1024  # bytes at the end of a file in which its end mark is looked for: cameras write a little after it
TABLES = ((273, 279), (324, 325))  # TIFF's tags for where its strips or tiles begin, and how many bytes they take
ORIENTATION = 274  # EXIF's tag; from 5 on, width and height change places
UNDECODED = ('F', 'I')  # kinds of pixels of which OpenCV decodes some files

Item = TypeVar('Item')


@dataclass(frozen=True)
class Look:
    """What a look at an image file shows.

    Args:
        size: Width and height in px, as mmcv reads it.
        turned: Whether its EXIF orientation turns or mirrors it there.
        deep: Whether it has more than 8 bits a channel, of which mmcv keeps 8.
    """

    size: tuple[int, int]
    turned: bool = False
    deep: bool = False


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


def look_at(path: Path, turned: bool = True, decode: bool = False) -> Look:
    """What mmcv will read from an image file.

    A file is taken as whole when its head can be read and its end is where it should be. One without an end mark that
    is known, or of a kind that Pillow does not know, is decoded.

    Args:
        path: The file.
        turned: Whether it is read with its EXIF orientation.
        decode: Decode every pixel; slower by a factor of about 20, and a large image takes memory.

    Raises:
        OSError: It is missing, damaged, or nothing that mmcv reads.
    """
    with path.open('rb'):
        pass
    if decode:
        return Look(_decoded_size(path, turned))
    try:
        with Image.open(path) as image:
            width, height = image.size
            bits = re.search(r';(16|32)', str([tile[3] for tile in image.tile]))
            orientation = _orientation(image, path) if turned else 1
            # Pillow gives the size of a TIFF as it is turned, and of the others as it is not.
            if orientation > 4 and image.format != 'TIFF':
                width, height = height, width
            whole = image.mode not in UNDECODED and _ends_well(image, path)
    except Exception:  # decoders raise OSError, SyntaxError, struct.error, and more
        return Look(_decoded_size(path, turned))
    if not whole:
        _decoded_size(path, turned)
    return Look((width, height), orientation != 1, bits is not None)


def image_size(path: Path) -> tuple[int, int]:
    """Width and height in px, as mmcv reads them.

    Raises:
        OSError: The file is missing or no image.
    """
    return look_at(path).size


def damage(path: Path, decode: bool = False) -> str | None:
    """What is wrong with an image file, in a few words; None if nothing is."""
    try:
        look_at(path, decode=decode)
    except FileNotFoundError:
        return 'missing'
    except OSError as error:
        return f'cannot be read ({error})'
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


def _decoded_size(path: Path, turned: bool) -> tuple[int, int]:
    """Width and height after decoding as ``mmcv.imfrombytes`` does."""
    flags = cv2.IMREAD_COLOR if turned else cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    content = np.fromfile(path, np.uint8)
    try:
        image = cv2.imdecode(content, flags) if content.size else None
    except cv2.error as error:
        raise OSError(' '.join(str(error).split())) from None
    if image is None:
        raise OSError('OpenCV, by which mmcv reads images, decodes nothing of it' if content.size else 'it is empty')
    return image.shape[1], image.shape[0]


def _orientation(image: Image.Image, path: Path) -> int:
    # Pillow decodes a whole PNG to look for EXIF behind the pixels.
    if image.format == 'PNG' and 'exif' not in image.info and b'eXIf' not in _tail(path, 1 << 16):
        return 1
    try:
        found = image.getexif().get(ORIENTATION, 1)
    except Exception:  # damaged EXIF turns nothing
        return 1
    return found if found in range(1, 9) else 1


def _ends_well(image: Image.Image, path: Path) -> bool:
    size = os.path.getsize(path)
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        parts = [(image.tag_v2.get(start), image.tag_v2.get(length)) for start, length in TABLES]
        return any(
            starts and lengths and max(map(sum, zip(starts, lengths, strict=True))) <= size for starts, lengths in parts
        )
    return image.format in ENDS and ENDS[image.format] in _tail(path, TAIL)


def _tail(path: Path, length: int) -> bytes:
    with path.open('rb') as file:
        file.seek(max(0, os.path.getsize(path) - length))
        return file.read()
