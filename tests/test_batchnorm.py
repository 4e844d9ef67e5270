import pytest
import torch
from tiny import same, weights
from torch import nn

import mmpeft


class Net(nn.Module):
    """A BatchNorm that trains and, with another kind of layer before it, one that a frozen backbone keeps in eval."""

    def __init__(self):
        super().__init__()
        self.frozen, self.dropout, self.norm = nn.BatchNorm1d(3), nn.Dropout(0.5), nn.BatchNorm1d(3, momentum=0.3)

    def train(self, mode=True):
        super().train(mode)
        self.frozen.eval()
        return self

    def forward(self, x):
        return self.norm(self.dropout(self.frozen(x)))


def run(model, batch):
    return model(batch)


def test_statistics_are_the_mean_over_the_batches():
    model = Net().eval()
    batches = [torch.randn(8, 3) * 2 + 5 for _ in range(3)]
    frozen = weights(model.frozen)
    mmpeft.recompute_batchnorm(model, batches, run)
    scale = (1 + model.frozen.eps) ** -0.5
    assert torch.allclose(model.norm.running_mean, scale * torch.stack(batches).mean((0, 1)), atol=1e-5)
    variances = torch.stack([batch.var(0) for batch in batches])
    assert torch.allclose(model.norm.running_var, scale**2 * variances.mean(0), atol=1e-4)
    assert same(weights(model.frozen), frozen)


def test_computing_twice_gives_the_same():
    model, batches = Net(), [torch.randn(8, 3)]
    mmpeft.recompute_batchnorm(model, batches, run)
    once = weights(model)
    mmpeft.recompute_batchnorm(model, batches, run)
    assert same(weights(model), once)


def test_modes_and_momenta_are_left_as_they_were():
    model = Net().train()
    model.dropout.eval()
    mmpeft.recompute_batchnorm(model, [torch.randn(8, 3)], run)
    assert [module.training for module in model.modules()] == [True, False, False, True]
    assert model.norm.momentum == 0.3
    with pytest.raises(RuntimeError):
        mmpeft.recompute_batchnorm(model, [torch.randn(8, 2)], run)
    assert [module.training for module in model.modules()] == [True, False, False, True]
    assert model.norm.momentum == 0.3


def test_a_model_without_batch_norm_is_not_run():
    mmpeft.recompute_batchnorm(nn.LayerNorm(3), [1], lambda model, batch: pytest.fail('was run'))


def test_no_batch_is_refused_and_changes_nothing():
    model = Net()
    model(torch.randn(8, 3))
    before = weights(model)
    with pytest.raises(ValueError, match='at least one batch, got none'):
        mmpeft.recompute_batchnorm(model, [], run)
    assert same(weights(model), before)
