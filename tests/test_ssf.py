import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmpeft.costs import saved_bytes
from mmpeft.methods.ssf import SSF, ScaledLinear

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


@pytest.mark.parametrize('dtype', TOLERANCE)
@pytest.mark.parametrize('bias', [True, False])
def test_after_a_frozen_linear_layer_values_and_gradients_are_those_of_the_formula(dtype, bias):
    layer, linear = spread(SSF(12)).to(dtype), nn.Linear(8, 12, bias=bias, dtype=dtype).requires_grad_(False)
    x = torch.randn(3, 5, 8, dtype=dtype, requires_grad=True)
    ours, plain = layer.after_linear(x, linear.weight, linear.bias), layer(linear(x))
    assert relative_error(ours, plain) < TOLERANCE[dtype]
    seed, wanted = torch.randn_like(ours), [x, layer.scale, layer.shift]
    for a, b in zip(torch.autograd.grad(ours, wanted, seed), torch.autograd.grad(plain, wanted, seed), strict=True):
        assert relative_error(a, b) < TOLERANCE[dtype]


def test_after_a_frozen_linear_layer_gradients_are_those_of_finite_differences():
    linear = nn.Linear(4, 3, dtype=torch.float64).requires_grad_(False)
    inputs = [torch.rand(shape, dtype=torch.float64).add(0.5).requires_grad_() for shape in ((5, 4), 3, 3)]
    assert torch.autograd.gradcheck(lambda x, s, t: ScaledLinear.apply(x, linear.weight, linear.bias, s, t), inputs)


def test_after_a_frozen_linear_layer_the_result_alone_is_kept():
    layer, linear, x = spread(SSF(12)), nn.Linear(8, 12).requires_grad_(False), torch.randn(5, 8, requires_grad=True)
    model = nn.ModuleList([layer, linear])
    assert saved_bytes(model, lambda: F.gelu(layer.after_linear(x, linear.weight, linear.bias))) == 4 * 5 * 12


@pytest.mark.parametrize('case', ['trains', 'small scale'])
def test_a_layer_that_trains_and_a_scale_near_zero_are_computed_step_by_step(case):
    layer, linear, x = spread(SSF(6)), nn.Linear(4, 6), torch.randn(5, 4)
    if case == 'small scale':
        linear.requires_grad_(False)
        nn.init.zeros_(layer.scale)
    ours, plain = layer.after_linear(x, linear.weight, linear.bias), layer(linear(x))
    assert torch.equal(ours, plain)
    wanted = [*layer.parameters(), *(p for p in linear.parameters() if p.requires_grad)]
    for a, b in zip(*(torch.autograd.grad(y.sum(), wanted) for y in (ours, plain)), strict=True):
        assert torch.equal(a, b)


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
