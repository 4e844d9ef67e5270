import random

import numpy as np
import pytest
import torch
from test_checkpoint import detector, moved
from test_soups import RUN
from tiny import MONA, SWIN, ToyModel, image, same, swin, weights
from torch import nn

import mmpeft
from mmpeft.soups.ingredients import open_ingredients
from mmpeft.soups.learned import Mixture

GROUPS = dict(
    block={
        'backbone',
        'head',
        *(f'backbone.stages.{s}.blocks.{b}' for s, b in [(0, 0), (1, 0), (1, 1), (2, 0), (3, 0)]),
    }
)


def toy(method, with_cp):
    """A model in fp64 whose backbone is stock where there is no method."""
    torch.manual_seed(0)
    model = ToyModel(dict(SWIN, type='mmdet.SwinTransformer'))
    model.backbone = swin(with_cp=with_cp)
    if method:
        mmpeft.inject(model.backbone, method)
        mmpeft.freeze(model.backbone)
    return model.double().eval()


def trained(method, folder):
    """Files of three runs; a frozen output norm is another in each."""
    files = []
    for seed in range(3):
        model = moved(toy(method, False), seed)
        model.backbone.norm3.weight.data += 0.1 * seed
        if method:
            files.append(folder / f'{seed}.safetensors')
            mmpeft.save_adapters(model, files[-1], facts=RUN)
        else:
            files.append(folder / f'{seed}.pth')
            torch.save(dict(state_dict=model.state_dict(), meta=dict(mmpeft=RUN)), files[-1])
    return files


def square(model, batch):
    return model(batch).square().mean()


@pytest.mark.parametrize('with_cp', [False, True])
@pytest.mark.parametrize('method', [MONA, dict(type='LoRA', rank=2), None], ids=['Mona', 'LoRA', 'stock'])
def test_gradients_of_coefficients_are_finite_differences(method, with_cp, tmp_path):
    x = image(batch=1).double()
    model = toy(method, with_cp)
    mixture = Mixture(open_ingredients(trained(method, tmp_path)), model, 'block')
    for target in mixture.targets.values():
        target.requires_grad_()
    torch.manual_seed(4)
    with torch.no_grad():
        mixture.raw.copy_(torch.randn_like(mixture.raw))

    def value():
        mixture.write()
        return square(model, x)

    value().backward()
    mixture.backward()
    assert set(mixture.groups) == GROUPS['block']
    with torch.no_grad():
        for group, column in [(0, 0), (1, 2), (3, 1), (len(mixture.groups) - 1, 0)]:
            raw = mixture.raw[group, column].item()
            mixture.raw[group, column] = raw + 1e-5
            above = value()
            mixture.raw[group, column] = raw - 1e-5
            difference = (above - value()) / 2e-5
            mixture.raw[group, column] = raw
            assert torch.allclose(mixture.raw.grad[group, column], difference, rtol=1e-5, atol=1e-10)
            assert difference != 0


class Product(nn.Module):
    """``x`` times one number, with a buffer that every forward replaces."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.unused = nn.Parameter(torch.zeros(1))
        self.register_buffer('size', torch.zeros(1), persistent=False)

    def forward(self, x):
        self.size = torch.ones(2)
        return self.weight * x


@pytest.fixture
def numbers(tmp_path):
    """Two files whose weights are 0 and 4."""
    paths = []
    for value in (0.0, 4.0):
        paths.append(tmp_path / f'{value}.pth')
        state = dict(weight=torch.tensor([value]), unused=torch.zeros(1))
        torch.save(dict(state_dict=state, meta=dict(mmpeft=RUN)), paths[-1])
    return paths


def distance(model, x, beta=1.0):
    return (beta * model(x) - 1).square().mean()


@pytest.mark.parametrize('by', ['block', 'tensor', 'global'])
def test_the_coefficients_that_are_learned_make_the_loss_small(by, numbers):
    soup = mmpeft.learned_soup(numbers, Product(), [torch.ones(1)] * 10, distance, by=by, epochs=20)
    assert soup.losses[0] == 1 and soup.losses[-1] < 1e-3
    [shares] = soup.coefficients.values()
    assert shares == pytest.approx([0.75, 0.25], abs=0.01) and sum(shares) == pytest.approx(1)
    assert soup.state_dict['weight'].item() == pytest.approx(4 * shares[1])
    assert soup.ingredients == [str(path) for path in numbers] and soup.inverse_temperature == 1


def test_learning_begins_at_the_mean(numbers):
    soup = mmpeft.learned_soup(numbers, Product(), [torch.ones(1)], distance, epochs=1, lr=0.0)
    assert same(soup.state_dict, mmpeft.uniform_soup(numbers))


def test_an_inverse_temperature_is_learned(numbers):
    soup = mmpeft.learned_soup(numbers, Product(), [torch.ones(1)], distance, temperature=True, epochs=100)
    assert soup.inverse_temperature < 0.9
    assert soup.inverse_temperature * soup.state_dict['weight'].item() == pytest.approx(1, abs=0.05)


def test_a_batch_draws_the_same_numbers_at_each_visit(numbers):
    drawn = {0: [], 1: []}

    def loss(model, batch):
        assert not model.training
        drawn[batch].append((torch.rand(()).item(), np.random.rand(), random.random()))
        return model(torch.ones(1)).sum()

    for _ in range(2):
        mmpeft.learned_soup(numbers, Product(), [0, 1], loss, epochs=2)
        torch.rand(3)
    assert len(drawn[0]) == 4 and len(set(drawn[0])) == len(set(drawn[1])) == 1 and drawn[0] != drawn[1]


class Shuffled:
    """One batch, after a draw from the global generator such as loaders make."""

    def __iter__(self):
        torch.randperm(4)
        yield torch.ones(1)


@pytest.mark.parametrize('fails', [False, True])
def test_the_model_and_the_generators_are_left_as_they_were(fails, numbers):
    model = Product().train()
    model.inner = nn.Dropout().eval()
    model.weight.requires_grad = False
    model.unused.grad = grad = torch.ones(1)
    before, size, state = weights(model), model.size, torch.get_rng_state()
    if fails:
        with pytest.raises(mmpeft.SoupError, match='loss of batch 1 is nan'):
            batches = [torch.ones(1), torch.full((1,), float('nan'))]
            mmpeft.learned_soup(numbers, model, batches, distance)
    else:
        mmpeft.learned_soup(numbers, model, Shuffled(), distance)
    assert same(weights(model), before) and model.size is size and model.size == 0
    assert model.training and not model.inner.training
    assert not model.weight.requires_grad and model.unused.requires_grad
    assert model.weight.grad is None and model.unused.grad is grad and grad == 1
    assert torch.equal(torch.get_rng_state(), state)


def test_a_layer_that_two_heads_share_is_learned_once(tmp_path):
    model = nn.ModuleDict(dict(one=nn.Linear(2, 1), two=nn.Linear(2, 1)))
    model['two'] = model['one']
    for number in range(2):
        nn.init.constant_(model['one'].weight, number)
        torch.save(dict(state_dict=model.state_dict(), meta=dict(mmpeft=RUN)), tmp_path / f'{number}.pth')
    mixture = Mixture(open_ingredients([tmp_path / '0.pth', tmp_path / '1.pth']), model, 'block')
    mixture.write()
    model['two'](torch.ones(1, 2)).sum().backward()
    mixture.backward()
    assert mixture.groups == ['one'] and mixture.rows == {'one.weight': 0, 'two.weight': 0}
    # The output is the sum of two weights s, s = softmax(raw)[1]: its gradient is 2 s (1 - s).
    assert torch.allclose(mixture.raw.grad, torch.tensor([[-0.5, 0.5]]).double())


def test_parameters_that_the_loss_does_not_see_are_warned_of(numbers):
    checkpoint = torch.load(numbers[0])
    checkpoint['state_dict']['unused'] += 1
    torch.save(checkpoint, numbers[0])
    with pytest.warns(UserWarning, match='does not depend on unused: no batch gave a gradient'):
        mmpeft.learned_soup(numbers, Product(), [torch.ones(1)], distance)


def test_what_cannot_be_learned_is_refused(numbers, tmp_path):
    model, batches = Product(), [torch.ones(1)]
    for words, call in {
        'gone through only once': lambda: mmpeft.learned_soup(numbers, model, iter(batches), distance),
        'at least one batch': lambda: mmpeft.learned_soup(numbers, model, [], distance),
        'nothing to learn': lambda: mmpeft.learned_soup(numbers[:1], model, batches, distance),
        "block, tensor, global, got 'layer'": lambda: mmpeft.learned_soup(numbers, model, [], distance, by='layer'),
        'no scalar tensor, but 3': lambda: mmpeft.learned_soup(numbers, model, batches, lambda model, batch: 3),
        'another model than this one: it lacks bias': lambda: mmpeft.learned_soup(
            numbers, nn.Linear(1, 1), batches, distance
        ),
    }.items():
        with pytest.raises(ValueError, match=words):
            call()


def test_adapter_files_of_another_model_are_refused(tmp_path):
    mmpeft.save_adapters(detector(), tmp_path / 'task.safetensors', facts=RUN)
    with pytest.raises(mmpeft.WrongModelError, match='this backbone carries'):
        mmpeft.learned_soup([tmp_path / 'task.safetensors'], detector(dict(type='SSF')), [0], square)
