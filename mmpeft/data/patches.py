"""Where a large image is cut, and which objects belong to each patch.

Source: ``tools/data/dota/split/img_split.py`` of mmrotate, after BboxToolkit. Positions, kept objects and flags are
equal to its, rounding included; the tests run both. Of label lines, only well-formed ones are read alike: that script
drops the difficulty of a line that ends with a space.
"""

from itertools import product
from math import ceil

import numpy as np
import shapely

MIN_IMAGE_SHARE = 0.6  # of a patch: less image than that is left to the neighbours, unless there is no better patch
MIN_OBJECT_SHARE = 0.7  # of an object: with less of it inside, a patch does not hold the object
CORNERS = [0, 1, 2, 1, 2, 3, 0, 3]  # of a window, in the order of the source: areas are then equal to the last bit
CUT = 2  # the difficulty of an object that reaches out of its patch


def scaled(size: int, overlap: int, rates: tuple[float, ...]) -> list[tuple[int, int]]:
    """Sizes and overlaps of the windows at each rate: at 0.5 a window shows twice the length.

    Raises:
        ValueError: A rate or size is not positive, the overlap is none, or two rates give windows of one size.
    """
    if size < 1 or not 0 <= overlap < size:
        raise ValueError(f'Windows of {size} px cannot overlap by {overlap} px; give 0 <= overlap < size.')
    if not rates or min(rates) <= 0:
        raise ValueError(f'Rates must be above 0, and these are {rates}.')
    pairs = [(int(size / rate), int(overlap / rate)) for rate in rates]
    if len({pair[0] for pair in pairs}) < len(pairs):
        raise ValueError(f'Two of the rates {rates} give windows of one size.')
    for side, shared in pairs:
        if shared >= side:
            raise ValueError(f'A rate among {rates} leaves windows of {side} px that overlap by {shared} px.')
    return pairs


def place_windows(width: int, height: int, sizes: list[tuple[int, int]]) -> np.ndarray:
    """Windows that cover an image; the last of a row or column is moved back to the edge.

    Args:
        width: Of the image, px.
        height: Of the image, px.
        sizes: Side and overlap of the windows, px.

    Returns:
        ``(N, 4)`` integers: left, top, right, bottom. They reach over the edge where the image is smaller.
    """
    windows = np.concatenate(
        [
            [(x, y, x + size, y + size) for x, y in product(*(_starts(side, size, gap) for side in (width, height)))]
            for size, gap in sizes
        ]
    ).astype(np.int64)
    inside = np.minimum(windows, [width, height, width, height])
    share = _areas(inside) / _areas(windows)
    if not (share > MIN_IMAGE_SHARE).any():
        return windows[(share > MIN_IMAGE_SHARE) | (abs(share - share.max()) < 0.01)]
    return windows[share > MIN_IMAGE_SHARE]


def shares_inside(quads: np.ndarray, windows: np.ndarray) -> np.ndarray:
    """The share of each quadrilateral's area that lies in each window.

    Shape: ``(N, 8)`` and ``(M, 4)`` -> ``(N, M)``.
    """
    shares = np.zeros((len(quads), len(windows)))
    if not shares.size:
        return shares
    points = quads.reshape(-1, 4, 2)
    low, high = points.min(axis=1)[:, None], points.max(axis=1)[:, None]
    reach = np.clip(np.minimum(high, windows[:, 2:]) - np.maximum(low, windows[:, :2]), 0, None)
    rows, columns = np.nonzero(reach.prod(axis=-1))
    polygons, boxes = (shapely.polygons(corners.reshape(-1, 4, 2)) for corners in (quads, windows[:, CORNERS]))
    shares[rows, columns] = _common_areas(polygons[rows], boxes[columns])
    areas = shapely.area(polygons).astype(np.float32)  # as the source does: some whole objects count as cut for it
    return shares / np.clip(areas[:, None], 1e-6, None)


def cut_image(image: np.ndarray, window: np.ndarray, padding: tuple[int, ...] | None) -> np.ndarray:
    """The part of an image in a window, filled up to the window's size unless ``padding`` is None.

    Shape: ``(H, W, C) -> (size, size, C)``; smaller without padding, where the window reaches over the edge.
    """
    left, top, right, bottom = window.tolist()
    patch = image[top:bottom, left:right]
    if padding is None or patch.shape[:2] == (bottom - top, right - left):
        return patch
    whole = np.empty((bottom - top, right - left, image.shape[2]), np.uint8)
    whole[...] = padding
    whole[: patch.shape[0], : patch.shape[1]] = patch
    return whole


def label_lines(
    quads: np.ndarray, classes: list[str], difficulties: list[int], shares: np.ndarray, window: np.ndarray
) -> str:
    """What the label file of one patch holds: the objects in it, in its own coordinates.

    Args:
        quads: ``(N, 8)`` corners in the image, px.
        classes: N class names.
        difficulties: N flags; those of cut objects become 2.
        shares: ``(N,)``, how much of each object lies in the window.
        window: ``(4,)``, of which left and top are used.
    """
    moved = quads.astype(np.float32) + np.tile(-window[:2], 4).astype(np.float32)
    lines = [
        f'{" ".join(map(str, moved[i]))} {classes[i]} {CUT if shares[i] < 1 else difficulties[i]}\n'
        for i in np.flatnonzero(shares >= MIN_OBJECT_SHARE)
    ]
    return ''.join(lines)


def patch_name(image: str, window: np.ndarray) -> str:
    """The name of a patch, from which its size and place can be read again: ``P0001__1024__824___0``."""
    left, top, right, _ = window.tolist()
    return f'{image}__{right - left}__{left}___{top}'


def _starts(length: int, size: int, overlap: int) -> list[int]:
    step = size - overlap
    starts = [step * i for i in range(1 if length <= size else ceil((length - size) / step + 1))]
    if len(starts) > 1:
        starts[-1] = min(starts[-1], length - size)
    return starts


def _areas(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def _common_areas(polygons: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    try:
        return shapely.area(shapely.intersection(polygons, boxes))
    except shapely.GEOSException:  # sides that cross; the source ends here
        return shapely.area(shapely.intersection(shapely.make_valid(polygons), boxes))
