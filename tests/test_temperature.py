import pytest
import torch
from ingredients import write_segmentor
from mmengine.registry import MODELS
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from torch import nn

from mmpeft.mm.checks import UserError
from mmpeft.mm.running.config import buildable_config
from mmpeft.mm.running.holdout import heldout_training_dataset
from mmpeft.mm.soups.scoring import FixedBatches, losses
from mmpeft.mm.soups.temperature import logits_head, losses_at


@pytest.fixture
def segmentor(tmp_path):
    """A tiny segmentor in eval mode and a batch."""
    cfg = buildable_config(str(write_segmentor(tmp_path)))
    model = MODELS.build(cfg.model).eval()
    nn.init.normal_(model.decode_head.conv_seg.weight)
    (batch,) = FixedBatches(heldout_training_dataset(cfg), 2, 2)
    return model, batch


def value(model, batch, *beta):
    return model.parse_losses(losses_at(model, batch, *beta) if beta else losses(model, batch))[0]


def test_a_temperature_is_a_factor_of_the_logits_in_the_loss_and_leaves_no_trace(segmentor):
    model, batch = segmentor
    plain, beta = value(model, batch), torch.tensor(2.0, requires_grad=True)
    hot = value(model, batch, beta)
    hot.backward()
    assert beta.grad != 0 and value(model, batch, torch.ones(())) == plain == value(model, batch)
    for parameter in model.decode_head.conv_seg.parameters():
        parameter.data *= 2
    assert value(model, batch) == hot != plain
    assert 'loss_by_feat' not in vars(model.decode_head)


def test_a_cascade_predicts_from_the_logits_of_its_last_head(segmentor):
    head = segmentor[0].decode_head
    cascade = nn.Module()
    cascade.decode_head = nn.ModuleList([nn.Identity(), head])
    assert logits_head(cascade) is head


def test_models_without_one_map_of_logits_have_no_temperature():
    class Points(BaseDecodeHead):
        def forward(self, inputs): ...

        def loss_by_feat(self, points, where): ...

    with pytest.raises(UserError, match='decode head learns from one map of logits, and Linear is none. Leave out'):
        logits_head(nn.Linear(1, 1))
    model = nn.Module()
    model.decode_head = Points(4, 4, num_classes=2)
    with pytest.raises(UserError, match='and Points is none'):
        logits_head(model)
