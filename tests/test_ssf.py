import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmpeft.costs import saved_bytes
from mmpeft.methods.ssf import FLOOR, SSF, LinearThenScale, ScaledLinear

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-11}


def spread(layer: SSF) -> SSF:
    """Values far from 1 and 0, so that a missing scale or shift shows."""
    nn.init.uniform_(layer.scale, 0.5, 2)
    nn.init.normal_(layer.shift)
    return layer


def relative_error(a, b):
    return ((a - b).norm() / b.norm()).item()


def test_shards_of_its_own_are_refused_with_the_policy_that_makes_them():
    layer, weight = SSF(4), torch.randn(4, 3)
    layer.shift = torch.nn.Parameter(torch.ones(0))
    for read in (lambda: layer.after_linear(torch.randn(2, 3), weight, None), lambda: layer.fold(weight, None)):
        with pytest.raises(RuntimeError, match='SSF reads its scale and shift .*Wrap whole blocks'):
            read()


def test_values_and_gradients_are_those_of_the_formula():
    layer, x = spread(SSF(5)).double(), torch.randn(2, 7, 5, dtype=torch.float64, requires_grad=True)
    ours, plain = layer(x), x * layer.scale + layer.shift
    torch.testing.assert_close(ours, plain)
    seed, wanted = torch.randn_like(ours), [x, layer.scale, layer.shift]
    for a, b in zip(torch.autograd.grad(ours, wanted, seed), torch.autograd.grad(plain, wanted, seed), strict=True):
        torch.testing.assert_close(a, b)


def test_the_channel_axis_is_the_one_that_was_named_even_on_a_square_map():
    layer, x = spread(SSF(4, channel_axis=1)), torch.randn(2, 4, 4, 4)
    expected = torch.stack([x[:, c] * layer.scale[c] + layer.shift[c] for c in range(4)], dim=1)
    torch.testing.assert_close(layer(x), expected)


def test_scale_one_and_shift_zero_is_the_identity_bit_for_bit():
    layer, x = SSF(6), torch.randn(2, 3, 6)
    nn.init.ones_(layer.scale)
    nn.init.zeros_(layer.shift)
    assert torch.equal(layer(x), x)


def test_starting_values_leaf_names_and_decay():
    layer = SSF(40000)
    assert layer.scale.mean().item() == pytest.approx(1, abs=5e-4)
    assert layer.shift.mean().item() == pytest.approx(0, abs=5e-4)
    assert layer.scale.std().item() == pytest.approx(0.02, rel=0.03)
    assert layer.shift.std().item() == pytest.approx(0.02, rel=0.03)
    assert {name: p.numel() for name, p in layer.named_parameters()} == {'scale': 40000, 'shift': 40000}
    assert set(layer.no_decay) == {'scale', 'shift'}


@pytest.mark.parametrize('dtype', TOLERANCE)
@pytest.mark.parametrize('bias', [True, False])
def test_a_linear_layer_takes_it_up(dtype, bias):
    layer, linear = spread(SSF(12)).to(dtype), nn.Linear(8, 12, bias=bias, dtype=dtype)
    x = torch.randn(3, 5, 8, dtype=dtype)
    folded = F.linear(x, *layer.fold(linear.weight, linear.bias))
    assert relative_error(folded, layer(linear(x))) < TOLERANCE[dtype]


@pytest.mark.parametrize('dtype', TOLERANCE)
@pytest.mark.parametrize('groups, bias', [(1, True), (1, False), (8, True)])
def test_a_convolution_takes_it_up(dtype, groups, bias):
    layer = spread(SSF(8, channel_axis=1)).to(dtype)
    conv = nn.Conv2d(8, 8, 3, groups=groups, bias=bias, dtype=dtype)
    x = torch.randn(2, 8, 9, 8, dtype=dtype)
    folded = F.conv2d(x, *layer.fold(conv.weight, conv.bias), groups=groups)
    assert relative_error(folded, layer(conv(x))) < TOLERANCE[dtype]


@pytest.mark.parametrize('dtype', TOLERANCE)
def test_a_norm_takes_it_up(dtype):
    layer, norm, x = spread(SSF(8)).to(dtype), nn.LayerNorm(8, dtype=dtype), torch.randn(2, 5, 8, dtype=dtype)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    folded = F.layer_norm(x, (8,), *layer.fold(norm.weight, norm.bias))
    assert relative_error(folded, layer(norm(x))) < TOLERANCE[dtype]


@pytest.mark.parametrize('form', ['cpu', 'gpu'])
@pytest.mark.parametrize('dtype', TOLERANCE)
@pytest.mark.parametrize('bias', [True, False])
@pytest.mark.parametrize('unchanged, dim', [(True, 8), (False, 8), (False, 16)])
def test_after_a_frozen_linear_layer_values_and_gradients_are_those_of_the_formula(
    dtype, bias, unchanged, dim, form, monkeypatch
):
    monkeypatch.setenv('MMPEFT_FORM', form)
    layer = spread(SSF(12, unchanged=unchanged)).to(dtype)
    linear = nn.Linear(dim, 12, bias=bias, dtype=dtype).requires_grad_(False)
    x = torch.randn(3, 5, dim, dtype=dtype, requires_grad=True)
    ours, plain = layer.after_linear(x, linear.weight, linear.bias), layer(linear(x))
    assert relative_error(ours, plain) < TOLERANCE[dtype]
    seed, wanted = torch.randn_like(ours), [x, layer.scale, layer.shift]
    for a, b in zip(torch.autograd.grad(ours, wanted, seed), torch.autograd.grad(plain, wanted, seed), strict=True):
        assert relative_error(a, b) < TOLERANCE[dtype]


@pytest.mark.parametrize('function', [ScaledLinear, LinearThenScale])
@pytest.mark.parametrize('dim', [2, 4])
def test_after_a_frozen_linear_layer_gradients_are_those_of_finite_differences(function, dim):
    linear = nn.Linear(dim, 3, dtype=torch.float64).requires_grad_(False)
    inputs = [torch.rand(shape, dtype=torch.float64).add(0.5).requires_grad_() for shape in ((5, dim), 3, 3)]
    assert torch.autograd.gradcheck(lambda x, s, t: function.apply(x, linear.weight, linear.bias, s, t), inputs)


@pytest.mark.parametrize('form', ['cpu', 'gpu'])
@pytest.mark.parametrize(
    'unchanged, dim, kept',
    [
        (True, 8, 4 * 12),  # the result, which GELU keeps too
        (False, 8, 4 * (8 + 12)),  # the input
        (False, 16, 4 * (12 + 12)),  # the output of the layer
    ],
)
def test_after_a_frozen_linear_layer_little_is_kept(unchanged, dim, kept, form, monkeypatch):
    monkeypatch.setenv('MMPEFT_FORM', form)
    layer, linear = spread(SSF(12, unchanged=unchanged)), nn.Linear(dim, 12).requires_grad_(False)
    model, x = nn.ModuleList([layer, linear]), torch.randn(500, dim, requires_grad=True)
    found = saved_bytes(model, lambda: F.gelu(layer.after_linear(x, linear.weight, linear.bias)))
    assert found == 500 * kept + (4 * 12 if form == 'gpu' and unchanged else 0)  # scales of at least FLOOR


def test_a_layer_that_trains_is_computed_step_by_step():
    layer, linear, x = spread(SSF(6, unchanged=True)), nn.Linear(4, 6), torch.randn(5, 4)
    ours, plain = layer.after_linear(x, linear.weight, linear.bias), layer(linear(x))
    assert torch.equal(ours, plain)
    wanted = [*layer.parameters(), *linear.parameters()]
    for a, b in zip(*(torch.autograd.grad(y.sum(), wanted) for y in (ours, plain)), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize('value', [0.0, 1e-7, -1e-4, 1e-3])
@pytest.mark.parametrize('form', ['cpu', 'gpu'])
def test_scales_near_zero_learn(value, form, monkeypatch):
    monkeypatch.setenv('MMPEFT_FORM', form)
    layer, linear, x = SSF(6, unchanged=True), nn.Linear(4, 6).requires_grad_(False), torch.randn(500, 4)
    nn.init.constant_(layer.scale, value)
    nn.init.normal_(layer.shift)
    ours, plain = layer.after_linear(x, linear.weight, linear.bias), layer(linear(x))
    torch.testing.assert_close(ours, plain, rtol=0, atol=1e-5 if form == 'cpu' or abs(value) > FLOOR else 6 * FLOOR)
    seed = torch.randn_like(ours)
    for a, b in zip(*(torch.autograd.grad(y, [*layer.parameters()], seed) for y in (ours, plain)), strict=True):
        assert relative_error(a, b) < 1e-2


@pytest.mark.parametrize('form', ['cpu', 'gpu'])
@pytest.mark.parametrize('unchanged', [True, False])
@pytest.mark.parametrize('model_dtype', [torch.float32, torch.bfloat16])
def test_the_gradient_of_the_scale_stays_exact_in_half_precision_however_large_the_shift(
    model_dtype, unchanged, form, monkeypatch
):
    monkeypatch.setenv('MMPEFT_FORM', form)
    layer, linear = SSF(32, unchanged=unchanged), nn.Linear(32, 32).requires_grad_(False)
    nn.init.constant_(layer.shift, 20)
    x, seed = torch.randn(2, 500, 32)
    layer, linear, x, seed = (part.to(model_dtype) for part in (layer, linear, x, seed))
    with torch.autocast('cpu', torch.bfloat16, enabled=model_dtype is torch.float32):
        ours = layer.after_linear(x, linear.weight, linear.bias)
    (found,) = torch.autograd.grad(ours, layer.scale, seed.to(ours.dtype))
    assert relative_error(found, (seed.double() * linear.double()(x.double())).sum(0)) < 1e-2


@pytest.mark.parametrize('form', ['cpu', 'gpu'])
def test_what_follows_may_change_the_result_in_place(form, monkeypatch):
    monkeypatch.setenv('MMPEFT_FORM', form)
    layer, linear, x = spread(SSF(12)), nn.Linear(8, 12).requires_grad_(False), torch.randn(5, 8, requires_grad=True)
    wanted, seed = [x, *layer.parameters()], torch.randn(5, 12)
    ours, plain = F.relu_(layer.after_linear(x, linear.weight, linear.bias)), F.relu(layer(linear(x)))
    for a, b in zip(*(torch.autograd.grad(y, wanted, seed) for y in (ours, plain)), strict=True):
        torch.testing.assert_close(a, b)


def test_no_images_give_gradients_of_zero():
    layer, linear = SSF(12), nn.Linear(8, 12).requires_grad_(False)
    out = layer.after_linear(torch.randn(0, 3, 8, requires_grad=True), linear.weight, linear.bias)
    assert not any(grad.any() for grad in torch.autograd.grad(out.sum(), [*layer.parameters()]))


def test_two_in_a_row_fold_one_after_the_other():
    first, second, linear, x = spread(SSF(6)), spread(SSF(6)), nn.Linear(4, 6), torch.randn(5, 4)
    folded = F.linear(x, *second.fold(*first.fold(linear.weight, linear.bias)))
    assert relative_error(folded, second(first(linear(x)))) < 1e-5


@pytest.mark.parametrize('bias', [True, False])
def test_gradients_pass_through_the_fold(bias):
    layer, linear, x = spread(SSF(6)), nn.Linear(4, 6, bias=bias), torch.randn(5, 4)
    unfolded, folded = layer(linear(x)), F.linear(x, *layer.fold(linear.weight, linear.bias))
    seed, wanted = torch.randn_like(folded), [layer.scale, layer.shift]
    ours, expected = (torch.autograd.grad(y, wanted, seed) for y in (folded, unfolded))
    for a, b in zip(ours, expected, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
@pytest.mark.parametrize('bias', [True, False])
def test_folding_keeps_the_dtype_of_the_weight_and_leaves_the_layers_as_they_were(bias, dtype):
    layer, linear = spread(SSF(6)), nn.Linear(4, 6, bias=bias, dtype=dtype)
    before = [p.detach().clone() for p in (*layer.parameters(), *linear.parameters())]
    with torch.no_grad():
        weight, folded_bias = layer.fold(linear.weight, linear.bias)
        weight.zero_()
        folded_bias.zero_()
    assert weight.dtype == folded_bias.dtype == dtype
    assert all(map(torch.equal, before, (*layer.parameters(), *linear.parameters())))


def test_bfloat16_features_under_autocast_stay_bfloat16():
    layer, linear, x = spread(SSF(6)), nn.Linear(4, 6), torch.randn(5, 4)
    with torch.autocast('cpu', torch.bfloat16):
        out = layer(linear(x))
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), layer(linear(x)), atol=3e-2, rtol=3e-2)


def test_after_a_frozen_linear_layer_autocast_keeps_gradients_near():
    layer, linear, x = spread(SSF(6)), nn.Linear(4, 6).requires_grad_(False), torch.randn(50, 4, requires_grad=True)
    wanted = [x, layer.scale, layer.shift]
    with torch.autocast('cpu', torch.bfloat16):
        out = layer.after_linear(x, linear.weight, linear.bias)
    assert out.dtype == torch.bfloat16
    exact = layer(linear(x))
    for a, b in zip(*(torch.autograd.grad(y.float().square().sum(), wanted) for y in (out, exact)), strict=True):
        assert a.dtype == torch.float32 and relative_error(a, b) < 3e-2


def test_a_dim_of_zero_is_an_error():
    with pytest.raises(ValueError, match='dim of at least 1, got 0'):
        SSF(0)


def test_features_with_other_channels_are_an_error():
    with pytest.raises(ValueError, match=r'SSF of 4 channels got features of shape \(2, 4, 5, 1\) with 1 channels'):
        SSF(4)(torch.randn(2, 4, 5, 1))
