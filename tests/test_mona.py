import copy

import pytest
import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

from mmpeft.costs import saved_bytes
from mmpeft.methods import Mona, depthwise
from mmpeft.methods.configs import full_options
from mmpeft.methods.depthwise import kernel_gradient
from mmpeft.methods.dropout import draw
from mmpeft.plain import PlainMona

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}


def spread(layer: Mona) -> Mona:
    """Values of ordinary size everywhere, so that no part of the formula is too small to see."""
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return layer


def plain(layer: Mona) -> PlainMona:
    """The published steps with the same parameters."""
    twin = copy.copy(layer)
    twin.__class__ = PlainMona
    return twin


def gradients(layer, out, x):
    seed = torch.randn(out.shape, generator=torch.Generator().manual_seed(1), dtype=out.dtype)
    return torch.autograd.grad(out, [x, *layer.parameters()], seed)


def seeded(layer, x, hw_shape):
    torch.manual_seed(4)
    return layer(x, hw_shape)


@pytest.fixture
def same_draws(monkeypatch):
    """The published steps drop what ours do."""

    def dropout(y, p, training):
        return y * draw(y, p) / (1 - p) if training and p else y

    monkeypatch.setattr(F, 'dropout', dropout)


@pytest.mark.parametrize('dtype', TOLERANCE)
@pytest.mark.parametrize('dropout', [0.0, 0.5])
@pytest.mark.parametrize('lean', [False, True])
@pytest.mark.parametrize('hw_shape', [(5, 9), (8, 3), (1, 1)])
def test_values_and_gradients_equal_the_published_steps(hw_shape, lean, dropout, dtype, same_draws):
    layer = spread(Mona(12, bottleneck=6, dropout=dropout, lean=lean)).to(dtype)
    x = torch.randn(2, hw_shape[0] * hw_shape[1], 12, dtype=dtype, requires_grad=True)
    ours, theirs = seeded(layer, x, hw_shape), seeded(plain(layer), x, hw_shape)
    torch.testing.assert_close(ours, theirs, atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype])
    for a, b in zip(gradients(layer, ours, x), gradients(layer, theirs, x), strict=True):
        torch.testing.assert_close(a, b, atol=30 * TOLERANCE[dtype], rtol=30 * TOLERANCE[dtype])


@pytest.mark.parametrize('shape', [(2, 9, 8, 8), (1, 11, 17, 3), (3, 1, 1, 40)])
def test_the_gradient_of_a_kernel_by_lanes_is_that_of_the_convolution(shape):
    groups = shape[1]
    x, kernel = torch.randn(shape, dtype=torch.float64), torch.randn(groups, 1, 7, 7, dtype=torch.float64)
    out = F.conv2d(x, kernel.requires_grad_(), padding=3, groups=groups)
    grad = torch.randn_like(out)
    (expected,) = torch.autograd.grad(out, kernel, grad)
    tokens = (maps.flatten(2).transpose(1, 2) for maps in (grad, x))
    torch.testing.assert_close(kernel_gradient(*tokens, shape[2:]), expected)


def test_images_one_after_the_other_have_the_gradients_of_all_at_once(monkeypatch):
    layer, x = spread(Mona(12, bottleneck=9)), torch.randn(3, 30, 12, requires_grad=True)
    wanted = gradients(layer, seeded(layer, x, (5, 6)), x)
    monkeypatch.setattr(depthwise, 'TOKENS', 60)
    for ours, expected in zip(gradients(layer, seeded(layer, x, (5, 6)), x), wanted, strict=True):
        torch.testing.assert_close(ours, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize('lean', [False, True])
def test_gradients_are_those_of_finite_differences(lean):
    layer = spread(Mona(3, bottleneck=2, dropout=0.5, lean=lean)).double()
    x = torch.randn(1, 6, 3, dtype=torch.float64, requires_grad=True)
    names = [name for name, _ in layer.named_parameters()]

    def run(x, *values):
        torch.manual_seed(4)
        return torch.func.functional_call(layer, dict(zip(names, values, strict=True)), (x, (2, 3)))

    assert torch.autograd.gradcheck(run, (x, *layer.parameters()))


@pytest.mark.parametrize('dropout', [0.1, 0.5, 0.999])
def test_dropout_drops_its_share_everywhere_alike(dropout):
    torch.manual_seed(0)
    kept = draw(torch.empty(2000, 3, 67), dropout).float()
    deviation = (dropout * (1 - dropout)) ** 0.5
    for share, count in ((kept.mean(), kept.numel()), (kept.mean((0, 1)), 6000), (kept.mean((0, 2)), 134000)):
        assert (share - (1 - dropout)).abs().max() < 4.5 * deviation / count**0.5
    pairs = ((kept[1:] - 1 + dropout) * (kept[:-1] - 1 + dropout)).mean()
    assert pairs.abs() < 4.5 * deviation**2 / kept.numel() ** 0.5


def test_dropout_is_drawn_where_the_tokens_are_whatever_the_default_device_is():
    tokens = torch.empty(2, 3)
    with torch.device('meta'):
        assert draw(tokens, 0.5).device == tokens.device


def test_the_backward_pass_leaves_the_generator_as_it_is():
    layer, x = spread(Mona(12, dropout=0.1, lean=True)), torch.randn(2, 30, 12, requires_grad=True)
    out = layer(x, (5, 6))
    state = torch.get_rng_state()
    out.sum().backward()
    assert torch.equal(torch.get_rng_state(), state)


def test_what_is_kept_for_the_backward_pass():
    x = torch.randn(2, 30, 12, requires_grad=True)
    wide, narrow, bits, composed = x.nbytes, 4 * 60 * 6, 60 * 6, 4 * (49 * 6 + 6 + 6 * 6 + 2 * 12)
    layer = Mona(12, bottleneck=6)
    for lean, expected in ((False, wide + 3 * narrow + bits), (True, wide + narrow)):
        layer.lean = lean
        kept = saved_bytes(layer, lambda: layer(x, (5, 6)))
        assert kept == expected + composed


@pytest.mark.parametrize('lean', [False, True])
@pytest.mark.parametrize('reentrant', [False, True])
def test_checkpointing_changes_no_gradient(reentrant, lean):
    layer, x = spread(Mona(12, dropout=0.5, lean=lean)), torch.randn(2, 30, 12, requires_grad=True)
    wanted = gradients(layer, seeded(layer, x, (5, 6)), x)
    torch.manual_seed(4)
    out = checkpoint(layer, x, (5, 6), use_reentrant=reentrant)
    out.backward(torch.randn(out.shape, generator=torch.Generator().manual_seed(1)))
    for parameter, expected in zip([x, *layer.parameters()], wanted, strict=True):
        assert torch.equal(parameter.grad, expected)


@pytest.mark.parametrize('lean', [False, True])
def test_behind_a_frozen_stem_the_input_gets_no_gradient_and_the_parameters_do(lean):
    layer, x = spread(Mona(12, dropout=0.0, lean=lean)), torch.randn(2, 30, 12, requires_grad=True)
    _, *wanted = gradients(layer, layer(x, (5, 6)), x)
    out = layer(x.detach(), (5, 6))
    out.backward(torch.randn(out.shape, generator=torch.Generator().manual_seed(1)))
    assert all(torch.equal(p.grad, expected) for p, expected in zip(layer.parameters(), wanted, strict=True))


def test_a_second_derivative_is_an_error():
    layer, x = Mona(12), torch.randn(1, 6, 12, requires_grad=True)
    (first,) = torch.autograd.grad(layer(x, (2, 3)).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match='differentiate twice'):
        first.sum().backward()


def test_compiled_it_computes_the_same():
    layer, x = spread(Mona(12, dropout=0.0)), torch.randn(2, 30, 12, requires_grad=True)
    compiled = torch.compile(layer, backend='aot_eager', fullgraph=True)
    ours, expected = compiled(x, (5, 6)), layer(x, (5, 6))
    torch.testing.assert_close(ours, expected)
    for a, b in zip(gradients(layer, ours, x), gradients(layer, expected, x), strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def test_leaf_names_and_count():
    layer = Mona(96)
    leaves = {name.split('.')[0] for name, _ in layer.named_parameters()}
    assert leaves == {'norm', 'gamma', 'gammax', 'down', 'conv3', 'conv5', 'conv7', 'pointwise', 'up'}
    assert sum(p.numel() for p in layer.parameters()) == 133 * 96 + 9728


def test_a_zero_up_projection_is_the_identity_bit_for_bit():
    layer = spread(Mona(12))
    torch.nn.init.zeros_(layer.up.weight)
    torch.nn.init.zeros_(layer.up.bias)
    x = torch.randn(1, 6, 12)
    assert torch.equal(layer(x, (2, 3)), x)


def test_trunc_normal_start():
    layer = Mona(384)
    for projection in (layer.down, layer.up):
        assert projection.weight.std().item() == pytest.approx(0.02, rel=0.05)
        assert not projection.bias.any()
    assert layer.gamma.unique().tolist() == pytest.approx([1e-6]) and layer.gammax.unique().tolist() == [1]
    assert layer.norm.weight.unique().tolist() == [1] and not layer.norm.bias.any()
    for conv, bound in ((layer.conv3, 1 / 3), (layer.conv5, 1 / 5), (layer.conv7, 1 / 7), (layer.pointwise, 1 / 8)):
        assert 0.8 * bound < conv.weight.abs().max() <= bound
        assert 0.8 * bound < conv.bias.abs().max() <= bound


def test_torch_start_keeps_the_defaults_of_linear():
    layer = Mona(384, init='torch')
    for projection in (layer.down, layer.up):
        bound = projection.in_features**-0.5
        assert 0.95 * bound < projection.weight.abs().max() <= bound
        assert 0.8 * bound < projection.bias.abs().max() <= bound


@pytest.mark.parametrize(
    'dim, init, expected', [(96, 'trunc_normal', 0.022), (768, 'trunc_normal', 0.069), (384, 'torch', 0.26)]
)
def test_the_start_is_as_far_from_the_identity_as_the_authors_is(dim, init, expected):
    layer, x = Mona(dim, init=init).eval(), torch.randn(2, 196, dim)
    assert ((layer(x, (14, 14)) - x).norm() / x.norm()).item() == pytest.approx(expected, rel=0.15)


def test_dropout_acts_in_training_alone():
    layer, x = spread(Mona(12, dropout=0.5)), torch.randn(1, 6, 12)
    assert not torch.equal(layer.train()(x, (2, 3)), layer(x, (2, 3)))
    assert torch.equal(layer.eval()(x, (2, 3)), layer(x, (2, 3)))


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(dim=8, bottleneck=0), 'at least 1, got dim=8, bottleneck=0'),
        (dict(dim=8, dropout=1.0), r'dropout in \[0, 1\), got 1.0'),
        (dict(dim=8, init='zero'), "initialisations trunc_normal, torch, got 'zero'"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        Mona(**options)


def test_a_grid_that_does_not_fit_is_an_error():
    with pytest.raises(ValueError, match='got 6 tokens for a grid of 2 x 4 = 8'):
        Mona(8)(torch.randn(1, 6, 8), (2, 4))


@pytest.mark.parametrize('lean', [False, True])
def test_bfloat16_autocast_keeps_the_stream_in_fp32_and_the_gradients_near(lean):
    layer, x = Mona(12, dropout=0.0, lean=lean), torch.randn(1, 30, 12, requires_grad=True)
    with torch.autocast('cpu', torch.bfloat16):
        out, theirs = layer(x, (5, 6)), plain(layer)(x, (5, 6))
    expected = layer(x, (5, 6))
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, expected, atol=1e-2, rtol=1e-2)
    exact = gradients(layer, expected, x)
    for ours, plain_ones, right in zip(gradients(layer, out, x), gradients(layer, theirs, x), exact, strict=True):
        assert ours.dtype == right.dtype
        assert (ours - right).norm() <= 3 * (plain_ones - right).norm() + 1e-6


@pytest.mark.parametrize('lean', [False, True])
def test_a_layer_in_bfloat16_trains(lean):
    layer, x = Mona(12, lean=lean).bfloat16(), torch.randn(1, 30, 12, dtype=torch.bfloat16, requires_grad=True)
    out = layer(x, (5, 6))
    assert out.dtype == torch.bfloat16
    out.sum().backward()
    assert all(p.grad.dtype == torch.bfloat16 and p.grad.isfinite().all() for p in (x, *layer.parameters()))


def test_how_it_is_computed_is_no_part_of_what_files_and_resuming_compare():
    assert full_options(dict(type='Mona', lean=True)) == full_options(dict(type='Mona'))
