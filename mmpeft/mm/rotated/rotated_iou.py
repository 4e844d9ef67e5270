"""Overlaps of rotated boxes, exact also where boxes are nearly equal, and NMS by them.

mmcv's operators work in single precision and lose corners there: of pairs of boxes that differ by 1e-5 px, about one in
a hundred has an IoU below 0.5 for them. Copies of one object in two patches are such pairs. On the CPU they compare all
pairs besides, and here only boxes near each other are compared.
"""

import numpy as np
import shapely
import torch
from mmrotate.structures.bbox import rbox2qbox
from torch import Tensor


def overlapping(boxes: Tensor, others: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The pairs of a box and one of ``others`` that may overlap: both indices, and their IoU.

    Shape: (N, 5) and (M, 5), as centre, width, height and angle in radians -> three times (P,).
    """
    mine, theirs = _polygons(boxes), _polygons(others)
    rows, columns = shapely.STRtree(theirs).query(mine)
    common = shapely.area(shapely.intersection(mine[rows], theirs[columns]))
    union = shapely.area(mine)[rows] + shapely.area(theirs)[columns] - common
    return rows, columns, common / np.maximum(union, np.finfo(float).tiny)


def rotated_nms(boxes: Tensor, scores: Tensor, iou_thr: float) -> Tensor:
    """Indices of the boxes, best first, that overlap none of a higher score by more than ``iou_thr``.

    Shape: (N, 5) and (N,) -> (K,).
    """
    order = scores.argsort(descending=True, stable=True)
    rows, columns, iou = overlapping(boxes[order], boxes[order])
    close = (iou > iou_thr) & (rows < columns)
    by_row = rows[close].argsort(kind='stable')
    rows, columns = rows[close][by_row], columns[close][by_row]
    starts, ends = (np.searchsorted(rows, np.arange(len(order)), side) for side in ('left', 'right'))
    kept = np.ones(len(order), bool)
    for row, (start, end) in enumerate(zip(starts, ends, strict=True)):
        if kept[row]:
            kept[columns[start:end]] = False
    return order[torch.from_numpy(kept)]


def _polygons(boxes: Tensor) -> np.ndarray:
    return shapely.polygons(rbox2qbox(boxes.double()).reshape(-1, 4, 2).numpy())
