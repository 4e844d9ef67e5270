import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData, PixelData
from mmrotate.structures.bbox import RotatedBoxes
from mmseg.structures import SegDataSample
from torch import nn

from mmpeft.mm.checks import UserError
from mmpeft.mm.soups.ensembling import averaged_predictions, fuse, weighted_boxes_fusion

BOXES = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 12], [50, 50, 60, 60], [0, 0, 10, 10]])
SCORES = torch.tensor([0.8, 0.4, 0.6, 0.9])
LABELS = torch.tensor([1, 1, 1, 0])


def test_boxes_of_a_class_that_overlap_become_their_mean_by_score():
    boxes, scores, labels = weighted_boxes_fusion(BOXES, SCORES, LABELS, models=2)
    assert labels.tolist() == [1, 0, 1]
    assert torch.allclose(boxes[0], torch.tensor([0, 0, 10, (0.8 * 10 + 0.4 * 12) / 1.2]))
    assert torch.allclose(scores, torch.tensor([0.6, 0.45, 0.3]))  # the last two were found by one model of two


def test_one_model_alone_is_not_changed():
    boxes, scores, labels = weighted_boxes_fusion(BOXES[[0, 2]], SCORES[[0, 2]], LABELS[[0, 2]], models=1)
    assert torch.allclose(boxes, BOXES[[0, 2]]) and torch.allclose(scores, SCORES[[0, 2]])


def test_no_boxes_are_no_boxes():
    none = weighted_boxes_fusion(BOXES[:0], SCORES[:0], LABELS[:0], models=3)
    assert [len(tensor) for tensor in none] == [0, 0, 0]


def detected(boxes, scores):
    return DetDataSample(
        pred_instances=InstanceData(bboxes=boxes, scores=scores, labels=torch.zeros(len(scores)).long())
    )


def test_rotated_boxes_are_thinned():
    box = torch.tensor([[50.0, 50, 20, 10, 0.3]])
    fused = fuse([detected(RotatedBoxes(box), SCORES[:1]), detected(RotatedBoxes(box + 0.1), SCORES[1:2])])
    assert fused.pred_instances.bboxes.shape == (1, 5) and fused.pred_instances.scores.tolist() == SCORES[:1].tolist()


def test_label_maps_are_those_of_the_mean_probabilities():
    """Not of the mean of the logits, in which one very sure model would win."""
    logits = [torch.tensor(values).view(2, 1, 1) for values in ([20.0, 0], [0.0, 3], [0.0, 3])]
    samples = [SegDataSample(seg_logits=PixelData(data=values)) for values in logits]
    assert fuse(samples).pred_sem_seg.data.item() == 1


def test_masks_of_instances_have_no_mean():
    sample = detected(BOXES, SCORES)
    sample.pred_instances.masks = torch.zeros(4, 5, 5)
    with pytest.raises(UserError, match='mask_head=None'):
        fuse([sample, sample])


def test_each_member_predicts_for_the_same_data_and_the_model_is_itself_again():
    seen = []

    class Model(nn.Module):
        score = None

        def val_step(self, data):
            seen.append(list(data))
            data.append('touched')
            return [detected(BOXES[:1], torch.tensor([self.score]))]

    model = Model()
    members = [lambda score=score: setattr(model, 'score', score) for score in (0.2, 0.6)]
    with averaged_predictions(model, members):
        (fused,) = model.val_step(['image'])
    assert seen == [['image'], ['image']] and fused.pred_instances.scores.item() == pytest.approx(0.4)
    assert 'val_step' not in vars(model)
