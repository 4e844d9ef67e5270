"""Whether mmdet and pycocotools can read the mask of an object in COCO's json."""

from operator import mul
from typing import Any


def mask_fault(mask: Any, size: tuple[int, int], polygons_alone: bool = False) -> str | None:
    """What is wrong with a mask, in a few words; None if nothing is.

    Args:
        mask: Polygons or RLE, as in ``segmentation``.
        size: Width and height of the image.
        polygons_alone: Whether RLE is left out.
    """
    if not mask:
        return 'no segmentation'
    if isinstance(mask, list):
        return _polygon_fault(mask)
    if not isinstance(mask, dict):
        return f'segmentation is a {type(mask).__name__}'
    return 'RLE, and the config keeps polygons' if polygons_alone else _rle_fault(mask, size)


def _polygon_fault(polygons: list) -> str | None:
    if not all(isinstance(polygon, list) for polygon in polygons):
        return 'a list of numbers and not of polygons'
    if not all(isinstance(number, int | float) for polygon in polygons for number in polygon):
        return 'polygons of text'
    whole = [polygon for polygon in polygons if len(polygon) % 2 == 0 and len(polygon) >= 6]  # mmdet drops the others
    if not whole or whole[0] is not polygons[0]:  # pycocotools takes all for what the first is
        return 'a polygon of fewer than 3 points or of half a point'
    return None if any(map(_area, whole)) else 'polygons without an area'


def _area(polygon: list[float]) -> float:
    x, y = polygon[::2], polygon[1::2]
    return sum(map(mul, x, y[1:] + y[:1])) - sum(map(mul, y, x[1:] + x[:1]))


def _rle_fault(mask: dict, size: tuple[int, int]) -> str | None:
    if list(mask.get('size') or []) != [size[1], size[0]]:
        return f'RLE of size {mask.get("size")}, where the image has height {size[1]} and width {size[0]}'
    try:
        runs = _runs(mask.get('counts'))
    except (TypeError, IndexError):
        return 'RLE without counts that can be read'
    if min(runs, default=-1) < 0 or sum(runs) != size[0] * size[1]:
        return f'RLE of {sum(runs)} px, where the image has {size[0] * size[1]}'
    return None if sum(runs[1::2]) else 'RLE without an area'


def _runs(counts: Any) -> list[int]:
    """The lengths of the runs.

    Source: ``rleFrString`` of pycocotools: 5 bits a character above ``'0'``, a sixth for more of them, and from the
    fourth number on the difference to the last but one.
    """
    if isinstance(counts, list):
        return [count + 0 for count in counts]
    if not isinstance(counts, str):
        raise TypeError(type(counts))
    runs, value, shift = [], 0, 0
    for character in counts:
        bits = ord(character) - 48
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            value -= (bits & 16) and 1 << shift
            runs.append(value + runs[-2] if len(runs) > 2 else value)
            value = shift = 0
    return runs
