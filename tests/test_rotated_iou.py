import pytest
import torch
from mmcv.ops import box_iou_rotated, nms_rotated
from mmrotate.structures.bbox import qbox2rbox, rbox2qbox
from rotated import boxes

from mmpeft.mm.rotated.rotated_iou import overlapping, rotated_nms


def crowd(count: int, seed: int) -> torch.Tensor:
    drawn = torch.rand(count, 5, generator=torch.Generator().manual_seed(seed))
    return drawn * torch.tensor([150, 150, 40, 20, 3.1]) + torch.tensor([0, 0, 5, 5, -1.55])


def dense(mine: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    table = torch.zeros(len(mine), len(others), dtype=torch.double)
    rows, columns, iou = map(torch.from_numpy, overlapping(mine, others))
    table[rows, columns] = iou
    return table


def test_overlaps_are_those_of_mmcv_in_general():
    mine, others = crowd(60, 0), crowd(40, 1)
    expected = box_iou_rotated(mine, others)
    assert (expected > 0.3).any() and torch.allclose(dense(mine, others).float(), expected, atol=1e-4)


def test_boxes_that_are_nearly_equal_overlap_nearly_wholly_unlike_in_mmcv():
    box = boxes([50, 50, 20, 10, 0.3])
    same = qbox2rbox(rbox2qbox(box))
    assert dense(box, same).item() == pytest.approx(1, abs=1e-5) and box_iou_rotated(box, same).item() < 0.5


def test_boxes_without_area_overlap_nothing():
    line = boxes([50, 50, 20, 0, 0.3])
    assert dense(line, boxes([50, 50, 20, 10, 0.3], [50, 50, 20, 0, 0.3])).tolist() == [[0, 0]]


@pytest.mark.parametrize('iou_thr', [0.1, 0.5])
@pytest.mark.parametrize('seed', range(3))
def test_nms_keeps_what_that_of_mmcv_keeps(seed, iou_thr):
    crowded = crowd(150, seed)
    scores = torch.rand(150, generator=torch.Generator().manual_seed(seed))
    _, expected = nms_rotated(crowded, scores, iou_thr)
    assert 20 < len(expected) < 150
    assert rotated_nms(crowded, scores, iou_thr).tolist() == expected.tolist()


def test_nms_of_no_boxes_is_empty():
    assert rotated_nms(torch.zeros(0, 5), torch.zeros(0), 0.1).tolist() == []


def test_nms_leaves_one_of_many_copies_moved_by_rounding():
    original = crowd(40, 3)[:1] + torch.zeros(500, 5)
    original[:, :2] += 1e-4 * torch.rand(500, 2, generator=torch.Generator().manual_seed(0))
    assert len(rotated_nms(original, torch.rand(500), 0.1)) == 1
