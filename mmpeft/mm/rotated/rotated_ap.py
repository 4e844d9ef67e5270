"""Average precision of rotated boxes, in this process alone."""

from collections.abc import Sequence

import numpy as np
from mmdet.evaluation.functional import average_precision
from torch import Tensor

from mmpeft.mm.rotated.patches import Detections, Truth
from mmpeft.mm.rotated.rotated_iou import overlapping


def class_results(
    found: Sequence[Detections], truths: Sequence[Truth], label: int, iou_thrs: Sequence[float], mode: str
) -> list[dict]:
    """Average precision of one class for each IoU threshold.

    A detection belongs to the object that it overlaps most. It is right if that overlap reaches the threshold and no
    detection of a higher score has the object; it does not count if the object is ignored.

    Args:
        found: What was found in each image.
        truths: What is in each image.
        label: The class.
        iou_thrs: The thresholds.
        mode: ``11points`` as in VOC 2007, or ``area``.

    Returns:
        For each threshold ``num_gts``, ``num_dets``, ``recall``, ``precision`` and ``ap``, as mmrotate names them.

    Source: mmrotate's ``eval_rbbox_map``, which computes the same in processes that it spawns. It takes overlaps from
        mmcv's operator and drops the ignored objects of images that have no others; here they stay.
    """
    scores, best = [np.zeros(0)], []
    for detections, truth in zip(found, truths, strict=True):
        mine, theirs = detections.labels == label, truth.labels == label
        order = detections.scores[mine].argsort(descending=True, stable=True)
        scores.append(detections.scores[mine][order].double().numpy())
        overlaps = _best_overlaps(detections.boxes[mine][order], truth.boxes[theirs])
        best.append((*overlaps, truth.ignored[theirs].numpy()))
    order = np.argsort(-np.concatenate(scores), kind='stable')
    num_gts = sum(int((~ignored).sum()) for *_, ignored in best)
    results = []
    for threshold in iou_thrs:
        hits = np.concatenate([np.zeros((0, 2), bool)] + [_hits(*image, threshold) for image in best])
        right, wrong = hits[order].cumsum(axis=0).T
        recall = right / max(num_gts, 1)
        precision = right / np.maximum(right + wrong, 1)
        ap = float(average_precision(recall, precision, mode))
        results.append(dict(num_gts=num_gts, num_dets=len(order), recall=recall, precision=precision, ap=ap))
    return results


def mean_ap(results: Sequence[dict]) -> float:
    """The mean over the classes of which there are objects; 0 without any."""
    return float(np.mean([result['ap'] for result in results if result['num_gts']] or [0.0]))


def _best_overlaps(boxes: Tensor, objects: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """The highest IoU of each box with any object, and which object that is."""
    best, index = np.zeros(len(boxes)), np.zeros(len(boxes), int)
    rows, columns, iou = overlapping(boxes, objects)
    order = np.lexsort((-columns, iou))  # the last one stays: the highest, and of equal ones the first
    best[rows[order]], index[rows[order]] = iou[order], columns[order]
    return best, index


def _hits(iou: np.ndarray, index: np.ndarray, ignored: np.ndarray, threshold: float) -> np.ndarray:
    """Which detections of an image, in the order of their scores, are right and which wrong: (N, 2) of bool."""
    hits = np.zeros((len(iou), 2), bool)
    taken = np.zeros(len(ignored), bool)
    for i, (overlap, best) in enumerate(zip(iou, index, strict=True)):
        if overlap < threshold:
            hits[i, 1] = True
        elif not ignored[best]:
            hits[i, int(taken[best])] = True
            taken[best] = True
    return hits
