"""Cut the images of DOTA and STAR, with their quadrilaterals, into patches on disk; go on where a run stopped.

One image at a time is held in memory, at 3 bytes a pixel. OpenCV decodes nothing in part, and what is above 2 GiB it
holds twice at first: STAR's largest image, 27,860 x 31,096 px, takes 5.2 GB. An uncompressed TIFF of any size is held
twice too.
"""

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from mmpeft.data.images import ENDS, damage, find_images, image_size, images_of_any_size
from mmpeft.data.patches import cut_image, label_lines, patch_name, place_windows, scaled, shares_inside
from mmpeft.data.quads import read_quads
from mmpeft.files import remove_leftovers, write_atomically

MANIFEST = 'split.json'
ONCE = 2**31 - 1  # bytes: OpenCV decodes no more than that into an array it is given
GRAY = (104, 116, 124)  # blue, green, red: the mean of ImageNet, as in mmrotate's settings for DOTA


@dataclass(frozen=True)
class Cut:
    """How images are cut: side and overlap in px, the rates, and what fills patches (None: leave them smaller)."""

    size: int = 1024
    overlap: int = 200
    rates: tuple[float, ...] = (1.0,)
    padding: tuple[int, int, int] | None = GRAY


@dataclass
class Done:
    """What a run did: patches that are there now, those that were there before, objects in them, images cut."""

    images: int = 0
    patches: int = 0
    kept: int = 0
    objects: int = 0
    unreadable: tuple[str, ...] = ()

    def __str__(self) -> str:
        kept = f' ({self.kept} of them were there)' if self.kept else ''
        return f'{self.patches} patches{kept} of {self.images} images, {self.objects} objects'


def split_folders(folders: Sequence[tuple[Path, Path | None]], out: Path, cut: Cut, jobs: int = 4) -> Done:
    """Write ``out/images/*.png`` and ``out/annfiles/*.txt``; patches that are there and whole stay.

    A patch is whole when its label file holds what it should and its image ends as a PNG does. So a run that was
    killed is started again by the same command, and ends with the same files.

    Args:
        folders: Image folders, each with its folder of label files or None; a missing label file counts as empty.
        out: A new folder, or that of an earlier run with the same settings.
        cut: The settings.
        jobs: Threads that write patches, all of one image.

    Raises:
        ValueError: ``out`` holds something else, images share a name, or a label file or an image cannot be read;
            the other images are split before that.
    """
    sizes = scaled(cut.size, cut.overlap, cut.rates)
    images = _find(folders)
    _claim(out, cut, images)
    done, unreadable = Done(), []
    with images_of_any_size(), ThreadPoolExecutor(jobs) as pool:
        for path, labels in tqdm(images, desc=f'Splitting into {out}', disable=None):
            try:
                _split_image(path, labels, out, sizes, cut.padding, pool, done)
            except OSError as error:
                unreadable.append(f'{path} ({error})')
    if unreadable:
        raise ValueError(f'{done}; {len(unreadable)} could not be read: {", ".join(unreadable)}.')
    return done


def largest_image(folders: Sequence[tuple[Path, Path | None]]) -> tuple[int, int]:
    """Width and height of the image with the most pixels, which sets the memory that splitting takes."""
    with images_of_any_size():
        return max((image_size(path) for path, _ in _find(folders)), key=lambda size: size[0] * size[1])


def memory(width: int, height: int) -> int:
    """The bytes that an image takes while it is decoded."""
    size = 3 * width * height
    return size if size <= ONCE else 2 * size


def _split_image(
    path: Path,
    labels: Path | None,
    out: Path,
    sizes: list[tuple[int, int]],
    padding: tuple[int, ...] | None,
    pool: ThreadPoolExecutor,
    done: Done,
) -> None:
    quads, classes, difficulties = read_quads(labels)
    width, height = image_size(path)
    windows = place_windows(width, height, sizes)
    shares = shares_inside(quads, windows)
    todo = []
    for window, share in zip(windows, shares.T, strict=True):
        name, text = patch_name(path.stem, window), label_lines(quads, classes, difficulties, share, window)
        done.objects += text.count('\n')
        if not _is_whole(out, name, text):
            todo.append((name, text, window))
    if todo:
        image = _read(path, (height, width))
        write = partial(_write, out, image, padding)
        list(pool.map(lambda patch: write(*patch), todo))
    done.images += 1
    done.patches += len(windows)
    done.kept += len(windows) - len(todo)


def _read(path: Path, shape: tuple[int, int]) -> np.ndarray:
    wrong = damage(path)
    if wrong:
        raise OSError(wrong)
    decoded = _decode_into(path, shape) if 3 * shape[0] * shape[1] <= ONCE else cv2.imread(str(path))
    if decoded is None:
        raise OSError('OpenCV cannot decode it; above 2**30 pixels, set OPENCV_IO_MAX_IMAGE_PIXELS')
    if decoded.shape[:2] != shape:
        raise OSError(f'decoded it is {decoded.shape[1::-1]} px, and {shape[::-1]} px by its head; turned by EXIF?')
    return decoded


def _decode_into(path: Path, shape: tuple[int, int]) -> np.ndarray | None:
    """Decode into an array that is there; otherwise OpenCV holds the image twice.

    What it cannot decode it may leave as it was, which a row of noise shows.
    """
    image = np.empty((*shape, 3), np.uint8)
    noise = image[-1] = np.random.default_rng(0).integers(0, 256, image[-1].shape, np.uint8)
    decoded = cv2.imread(str(path), image, cv2.IMREAD_COLOR)
    return None if decoded is None or np.array_equal(decoded[-1], noise) else decoded


def _write(
    out: Path, image: np.ndarray, padding: tuple[int, ...] | None, name: str, text: str, window: np.ndarray
) -> None:
    encoded = cv2.imencode('.png', cut_image(image, window, padding))[1]
    write_atomically(out / 'annfiles' / f'{name}.txt', lambda file: file.write(text.encode()))
    write_atomically(out / 'images' / f'{name}.png', lambda file: file.write(encoded.tobytes()))


def _is_whole(out: Path, name: str, text: str) -> bool:
    try:
        with (out / 'images' / f'{name}.png').open('rb') as file:
            file.seek(-len(ENDS['PNG']), 2)
            return file.read() == ENDS['PNG'] and (out / 'annfiles' / f'{name}.txt').read_text() == text
    except OSError:
        return False


def _find(folders: Sequence[tuple[Path, Path | None]]) -> list[tuple[Path, Path | None]]:
    """All images with their label files.

    Raises:
        ValueError: There are none, or two have one name.
    """
    found: dict[str, tuple[Path, Path | None]] = {}
    for folder, labels in folders:
        for name, path in find_images(folder).items():
            if name in found:
                raise ValueError(f'{found[name][0]} and {path} have one name, and so would their patches.')
            found[name] = path, labels and labels / f'{name}.txt'
    if not found:
        raise ValueError(f'No images in {", ".join(str(folder) for folder, _ in folders)}.')
    return list(found.values())


def _claim(out: Path, cut: Cut, images: list[tuple[Path, Path | None]]) -> None:
    """Make ``out`` the folder of these images and settings, or see that it is."""
    settings = json.dumps({**asdict(cut), 'images': sorted(path.name for path, _ in images)}, indent=1)
    manifest = out / MANIFEST
    if manifest.is_file():
        if manifest.read_text() != settings:
            raise ValueError(f'{out} holds patches of other images or settings, told in {manifest}; name another.')
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f'{out} exists and holds no patches of this tool; name another folder.')
    else:
        write_atomically(manifest, lambda file: file.write(settings.encode()))
    for folder in (out / 'images', out / 'annfiles'):
        folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder, '*')
