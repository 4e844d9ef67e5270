"""The mean of the predictions of several models: the upper baseline of soups, at the cost of all their forwards."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import torch
from mmcv.ops import batched_nms, bbox_overlaps
from mmengine.structures import InstanceData, PixelData
from torch import Tensor, nn

from mmpeft.mm.checks import UserError

SAME = 0.55  # IoU from which on boxes are of one object, as the authors of weighted boxes fusion have it
SAME_ROTATED = 0.1  # and rotated ones, as mmrotate's configs have it


@contextmanager
def averaged_predictions(model: nn.Module, members: Sequence[Callable[[], None]]) -> Iterator[None]:
    """While it lasts, ``model.val_step`` predicts with the weights of all members in turn and fuses what they say.

    Args:
        model: A model of mm.
        members: Each writes the weights of one member into ``model``.
    """
    step = model.val_step

    def fused_step(data: Any) -> list:
        said = []
        for write in members:
            write()
            said.append(step(deepcopy(data)))  # predictions are written into the samples of the data
        return [fuse(samples) for samples in zip(*said, strict=True)]

    model.val_step = fused_step
    try:
        yield
    finally:
        del model.val_step


def fuse(samples: Sequence[Any]) -> Any:
    """One prediction from those of several models for the same image.

    Segmentation: the mean of the probabilities. Boxes: weighted boxes fusion (Solovyev et al. 2021, arXiv:1910.13302).
    Rotated boxes: NMS over all.

    Raises:
        UserError: Predictions of another kind, such as masks of instances.
    """
    fused = samples[0]
    if 'seg_logits' in fused:
        logits = [sample.seg_logits.data for sample in samples]
        if len(logits[0]) > 1:
            mean = torch.stack([x.softmax(0) for x in logits]).mean(0)
            fused.pred_sem_seg = PixelData(data=mean.argmax(0, keepdim=True))
            return fused
    elif 'pred_instances' in fused and 'masks' not in fused.pred_instances:
        fused.pred_instances = _fuse_boxes([sample.pred_instances for sample in samples])
        return fused
    raise UserError(
        'An ensemble averages boxes, and label maps of several classes; these predictions are '
        f'{", ".join(fused.keys())}. Leave masks out with --cfg-options model.roi_head.mask_head=None and a metric of '
        'boxes.'
    )


def _fuse_boxes(said: Sequence[InstanceData]) -> InstanceData:
    boxes = torch.cat([getattr(one.bboxes, 'tensor', one.bboxes) for one in said])
    scores, labels = torch.cat([one.scores for one in said]), torch.cat([one.labels for one in said])
    if boxes.shape[1] == 4:
        boxes, scores, labels = weighted_boxes_fusion(boxes, scores, labels, len(said))
        return InstanceData(bboxes=boxes, scores=scores, labels=labels)
    kept = batched_nms(boxes, scores, labels, dict(type='nms_rotated', iou_threshold=SAME_ROTATED))[1]
    return InstanceData(bboxes=boxes[kept], scores=scores[kept], labels=labels[kept])


def weighted_boxes_fusion(boxes: Tensor, scores: Tensor, labels: Tensor, models: int) -> tuple[Tensor, Tensor, Tensor]:
    """Join boxes of a class that overlap: corners weighted by the scores, and the mean score, less where models miss.

    Args:
        boxes: Left, top, right, bottom, of all models together.
        scores: Of the boxes.
        labels: Their classes.
        models: How many models there are; of an object that only some find the score is lower in proportion.

    Shape:
        ``(N, 4), (N,), (N,) -> (M, 4), (M,), (M,)``, the highest score first.
    """
    order = scores.argsort(descending=True, stable=True)
    fused, weighted = torch.empty_like(boxes), torch.zeros_like(boxes)
    total, count, kinds = torch.zeros_like(scores), torch.zeros_like(scores), torch.empty_like(labels)
    found = 0
    for index in order.tolist():
        place = found
        if found:
            overlaps = bbox_overlaps(boxes[index : index + 1], fused[:found])[0] * (kinds[:found] == labels[index])
            nearest = int(overlaps.argmax())
            place = nearest if overlaps[nearest] > SAME else found
        found = max(found, place + 1)
        weighted[place] += scores[index] * boxes[index]
        total[place] += scores[index]
        count[place] += 1
        kinds[place] = labels[index]
        fused[place] = weighted[place] / total[place]
    joined = (total / count * count.clamp(max=models) / models)[:found]
    best = joined.argsort(descending=True, stable=True)
    return fused[best], joined[best], kinds[best]
