"""Handwritten digits on photographs, as images and instances, before any file format.

Every pixel comes from installed packages: the digits are scikit-learn's 1797 handwritten ones (8 x 8), the
photographs those inside the wheels of scikit-image and scikit-learn. Training and validation share neither a digit nor
a photograph. A scene depends on ``(seed, split, index)`` alone, and the generator is numpy's ``RandomState``, whose
stream never changes between versions.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image

CLASSES = ('0', '1', '2', '3', '4', '5', '6', '7', '8', '9')
SIZE = 224  # a multiple of 32 and of the windows of Swin: nothing is padded
PHOTOS = {
    'train': (
        'astronaut',
        'brick',
        'camera',
        'china.jpg',
        'coffee',
        'grass',
        'immunohistochemistry',
        'stereo_motorcycle',
    ),
    'val': ('chelsea', 'flower.jpg', 'gravel', 'rocket'),
}
VAL_SAMPLES = 500  # the last ones, which other people wrote
PER_SCENE = (4, 9)  # digits
HEIGHT = (22, 76)  # pixels of the 8 rows of a digit, drawn log-uniformly
ANGLE = 15  # degrees to either side
CONTRAST = 70  # of 255, at least, between a digit and what is behind it


@dataclass(frozen=True)
class Instance:
    """One digit in a scene.

    Attributes:
        label: Index in ``CLASSES``.
        mask: The pixels it covers, bool, ``(SIZE, SIZE)``.
        sample: Which handwritten digit it is, an index into scikit-learn's set.
    """

    label: int
    mask: np.ndarray
    sample: int

    @property
    def box(self) -> tuple[int, int, int, int]:
        """The tight box around the mask: left, top, width, height."""
        rows, columns = np.flatnonzero(self.mask.any(1)), np.flatnonzero(self.mask.any(0))
        return int(columns[0]), int(rows[0]), int(columns[-1] - columns[0] + 1), int(rows[-1] - rows[0] + 1)


@dataclass(frozen=True)
class Scene:
    """An image (RGB, uint8, ``(SIZE, SIZE, 3)``) and the digits in it."""

    image: np.ndarray
    instances: tuple[Instance, ...]


def make_scenes(split: str, count: int, seed: int = 0) -> Iterator[Scene]:
    """Make the first ``count`` scenes of a split, one at a time.

    Raises:
        ValueError: If the split is neither ``train`` nor ``val``.
    """
    if split not in PHOTOS:
        raise ValueError(f'The digits have no split {split!r}; there are {", ".join(PHOTOS)}.')
    for index in range(count):
        yield _scene(split, np.random.RandomState([seed, sorted(PHOTOS).index(split), index]))


def _scene(split: str, rng: np.random.RandomState) -> Scene:
    image = _background(PHOTOS[split][rng.randint(len(PHOTOS[split]))], rng)
    taken = np.zeros((SIZE, SIZE), bool)
    instances = []
    for _ in range(rng.randint(PER_SCENE[0], PER_SCENE[1] + 1)):
        sample = int(rng.choice(samples(split)))
        opacity = _opacity(sample, rng)
        place = _free_place(*opacity.shape, taken, rng)
        if place is None:
            continue
        top, left = place
        window = (slice(top, top + opacity.shape[0]), slice(left, left + opacity.shape[1]))
        image[window] = _paint(image[window], opacity, rng)
        mask = np.zeros((SIZE, SIZE), bool)
        mask[window] = opacity >= 128
        taken[window] = True
        instances.append(Instance(int(_digits().target[sample]), mask, sample))
    return Scene(image, tuple(instances))


def samples(split: str) -> range:
    """Which handwritten digits a split may use."""
    total = len(_digits().target)
    return range(total - VAL_SAMPLES) if split == 'train' else range(total - VAL_SAMPLES, total)


def _background(name: str, rng: np.random.RandomState) -> np.ndarray:
    """A random square of a photograph, flipped or not, lighter or darker, resized to ``SIZE``."""
    photo = _photo(name)
    side = rng.randint(round(0.55 * min(photo.size)), min(photo.size) + 1)
    left, top = rng.randint(photo.width - side + 1), rng.randint(photo.height - side + 1)
    image = np.asarray(photo.resize((SIZE, SIZE), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side)))
    if rng.randint(2):
        image = image[:, ::-1]
    return (image * rng.uniform(0.6, 1.0, size=3)).astype(np.uint8)


def _opacity(sample: int, rng: np.random.RandomState) -> np.ndarray:
    """A digit enlarged smoothly and turned a little, 0 to 255, cut to what is visible."""
    height = round(HEIGHT[0] * (HEIGHT[1] / HEIGHT[0]) ** rng.uniform())
    width = round(height * rng.uniform(0.8, 1.2))
    digit = np.pad(_digits().images[sample], 2) * (255 / 16)
    size = (width * 12 // 8, height * 12 // 8)
    digit = Image.fromarray(digit.astype(np.uint8)).resize(size, Image.Resampling.BICUBIC)
    digit = np.asarray(digit.rotate(rng.uniform(-ANGLE, ANGLE), Image.Resampling.BICUBIC)).astype(int)
    opacity = np.clip((digit - 90) * 3, 0, 255)  # a stroke with a soft edge of a few pixels
    rows, columns = np.flatnonzero((opacity >= 128).any(1)), np.flatnonzero((opacity >= 128).any(0))
    return opacity[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _free_place(height: int, width: int, taken: np.ndarray, rng: np.random.RandomState) -> tuple[int, int] | None:
    for _ in range(20):
        top, left = rng.randint(SIZE - height + 1), rng.randint(SIZE - width + 1)
        if not taken[top : top + height, left : left + width].any():
            return top, left
    return None


def _paint(behind: np.ndarray, opacity: np.ndarray, rng: np.random.RandomState) -> np.ndarray:
    """Lay a digit of one colour over what is behind it, in a colour that can be told from it."""
    grey = behind.mean()
    for _ in range(50):
        colour = rng.randint(0, 256, size=3)
        if abs(colour.mean() - grey) >= CONTRAST:
            break
    return ((behind * (255 - opacity[..., None]) + colour * opacity[..., None]) // 255).astype(np.uint8)


@cache
def _digits():
    from sklearn.datasets import load_digits

    return load_digits()


@cache
def _photo(name: str) -> Image.Image:
    """A photograph of scikit-learn, by its file name, or of scikit-image, by the name of its function."""
    if name.endswith('.jpg'):
        from sklearn.datasets import load_sample_image

        pixels = load_sample_image(name)
    else:
        from skimage import data

        pixels = getattr(data, name)()
    pixels = pixels[0] if isinstance(pixels, tuple) else pixels  # a stereo pair comes with its disparities
    return Image.fromarray(pixels).convert('RGB')
