import pytest
import torch
from tiny import MONA, image, swin, weights

import mmpeft


def test_is_adapter_looks_at_path_components():
    assert mmpeft.is_adapter('stages.0.blocks.0.adapters.after_attn.up.bias')
    assert not mmpeft.is_adapter('stages.0.adapters_of_old.weight')


def test_freeze_lets_the_adapters_alone_train():
    backbone = swin()
    mmpeft.inject(backbone, MONA)
    mmpeft.freeze(backbone)
    training = {name for name, p in backbone.named_parameters() if p.requires_grad}
    assert (
        training == mmpeft.trained_names(backbone) == {n for n, _ in backbone.named_parameters() if '.adapters.' in n}
    )


def test_a_step_changes_the_adapters_and_no_other_bit():
    backbone = swin()
    mmpeft.inject(backbone, MONA)
    mmpeft.freeze(backbone)
    before = weights(backbone)
    optimizer = torch.optim.AdamW(backbone.parameters(), lr=0.1, weight_decay=0.5)
    sum(out.square().mean() for out in backbone(image())).backward()
    optimizer.step()
    for name, value in backbone.state_dict().items():
        assert torch.equal(value, before[name]) != mmpeft.is_adapter(name), name


def test_trained_names_of_a_stock_backbone_is_an_error():
    with pytest.raises(ValueError, match=r'SwinTransformer holds no method of its own; call mmpeft\.inject'):
        mmpeft.trained_names(swin())


def test_freezing_a_detector_points_at_its_backbone():
    detector = torch.nn.Module()
    detector.backbone = swin()
    mmpeft.inject(detector.backbone, MONA)
    with pytest.raises(ValueError, match=r'The adapted backbone in it is \.backbone'):
        mmpeft.freeze(detector)


def test_counts_and_both_percentages():
    model = torch.nn.Module()
    model.base = torch.nn.Linear(9, 10).requires_grad_(False)
    model.adapters = torch.nn.Linear(4, 5)
    counts = mmpeft.count_parameters(model)
    assert (counts.trainable, counts.frozen, counts.adapter, counts.total) == (25, 100, 25, 125)
    assert counts.percent_of_base == 25 and counts.percent_of_all == 20
    assert str(counts) == (
        '25 trainable, 100 frozen, 25 in adapters; trainable are 25.000 % of the base and 20.000 % of everything'
    )


def test_a_shared_parameter_counts_once():
    model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 3))
    model[1].weight = model[0].weight
    assert mmpeft.count_parameters(model).total == 9 + 3 + 3
