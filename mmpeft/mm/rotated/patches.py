"""Put what was found in patches of an image, or labelled there, back on the whole image."""

import re
from collections.abc import Iterable
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from mmpeft.data.subsets import PATCH
from mmpeft.mm.rotated.rotated_iou import rotated_nms

# Copies of one object differ by rounding only, and hardly ever do two objects of a class overlap that far.
SAME_OBJECT = 0.7
# A lone number below it, or with a decimal point, is the scale of the image and not the size of the window.
SMALLEST_WINDOW = 16


class Detections(NamedTuple):
    """What was found in an image.

    Shape: boxes (N, 5) as centre, width and height in pixels and angle in radians; scores (N,); labels (N,).
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor


class Truth(NamedTuple):
    """What is in an image; ``ignored`` marks objects that count neither when found nor when missed.

    Shape: boxes (N, 5) as of ``Detections``; labels (N,); ignored (N,) of bool.
    """

    boxes: Tensor
    labels: Tensor
    ignored: Tensor


T = TypeVar('T', Detections, Truth)


class Patch(NamedTuple):
    """Where a patch lies: its left upper corner, in pixels of the image after that was scaled by ``rate``."""

    image: str
    x: int = 0
    y: int = 0
    rate: float = 1.0

    def to_whole(self, boxes: Tensor) -> Tensor:
        """Boxes (N, 5) in pixels of the whole, unscaled image."""
        corner = boxes.new_tensor([self.x, self.y])
        return torch.cat([(boxes[:, :2] + corner) / self.rate, boxes[:, 2:4] / self.rate, boxes[:, 4:]], dim=1)


def patch_of(name: str) -> Patch | None:
    """The place that the name of a patch tells; None for the name of a whole image.

    Names are those of mmrotate's splitter, ``P0001__1024__824___0`` (window, x, y), those of the DOTA devkit,
    ``P0001__0.5__824___0`` (rate, x, y), and both in one, ``P0001__0.5__1024__824___0``. mmrotate's own rates change
    the window and leave the image as it is, so that its names tell none.
    """
    match = re.fullmatch(PATCH, name)
    if match is None:
        return None
    first, *rest = match['numbers'].rstrip('_').split('__')
    is_rate = bool(rest) or '.' in first or int(first) < SMALLEST_WINDOW
    rate = float(first) if is_rate else 1.0
    return Patch(match['image'], int(match['x']), int(match['y']), rate) if rate > 0 else None


def merge_detections(parts: Iterable[tuple[str, Detections]], iou_thr: float) -> dict[str, Detections]:
    """Detections by whole image: those of patches moved there and thinned by rotated NMS in each class.

    Args:
        parts: Names, of patches or of whole images, and what was found in them; whole images stay as they are.
        iou_thr: Of two boxes of a class that overlap more, the one with the lower score goes.
    """
    whole, cut = _by_image(parts)
    for image, found in cut.items():
        boxes, scores, labels = map(torch.cat, zip(*found, strict=True))
        keep = _thin(boxes, scores, labels, iou_thr)
        whole[image] = Detections(boxes[keep], scores[keep], labels[keep])
    return whole


def merge_truths(parts: Iterable[tuple[str, Truth]]) -> dict[str, Truth]:
    """Objects by whole image: those of patches moved there, each once however many patches show it.

    It is not exact: objects that are in no patch are missing, and twice the same label becomes one. An object is
    ignored if it is in every patch that shows it.
    """
    whole, cut = _by_image(parts)
    for image, truths in cut.items():
        boxes, labels, ignored = map(torch.cat, zip(*truths, strict=True))
        keep = _thin(boxes, 1 - ignored.float(), labels, SAME_OBJECT)
        whole[image] = Truth(boxes[keep], labels[keep], ignored[keep])
    return whole


def _by_image(parts: Iterable[tuple[str, T]]) -> tuple[dict[str, T], dict[str, list[T]]]:
    """What is of whole images, and what is of patches, moved to its place, by the image that they were cut from."""
    whole, cut = {}, {}
    for name, part in parts:
        patch = patch_of(name)
        if patch is None:
            whole[name] = part
        else:
            cut.setdefault(patch.image, []).append(part._replace(boxes=patch.to_whole(part.boxes)))
    return whole, cut


def _thin(boxes: Tensor, scores: Tensor, labels: Tensor, iou_thr: float) -> Tensor:
    """Indices of what rotated NMS in each class leaves."""
    kept = [labels.new_zeros(0)]
    for label in labels.unique():
        (of_class,) = torch.where(labels == label)
        kept.append(of_class[rotated_nms(boxes[of_class], scores[of_class], iou_thr)])
    return torch.cat(kept)
