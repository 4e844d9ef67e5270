import pytest
import torch
import torch.nn.functional as F

from mmpeft.methods import Mona

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}


def plain_mona(layer: Mona, x, hw_shape):
    """The published layer step by step (arXiv:2408.08345), without dropout."""
    height, width = hw_shape
    z = layer.norm(x) * layer.gamma + x * layer.gammax
    y = layer.down(z)
    y = y.reshape(len(x), height, width, -1).permute(0, 3, 1, 2)
    y = (layer.conv3(y) + layer.conv5(y) + layer.conv7(y)) / 3 + y
    y = y + layer.pointwise(y)
    y = y.permute(0, 2, 3, 1).reshape(len(x), height * width, -1)
    return x + layer.up(F.gelu(y))


def spread(layer: Mona) -> Mona:
    """Values of ordinary size everywhere, so that no part of the formula is too small to see."""
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return layer


@pytest.mark.parametrize('dtype', TOLERANCE)
@pytest.mark.parametrize('hw_shape', [(5, 9), (8, 3), (1, 1)])
def test_values_and_gradients_equal_the_published_steps(dtype, hw_shape):
    layer = spread(Mona(12, bottleneck=6)).to(dtype).eval()
    x = torch.randn(2, hw_shape[0] * hw_shape[1], 12, dtype=dtype, requires_grad=True)
    ours, plain = layer(x, hw_shape), plain_mona(layer, x, hw_shape)
    torch.testing.assert_close(ours, plain, atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype])
    seed = torch.randn_like(ours)
    wanted = [x, *layer.parameters()]
    for a, b in zip(torch.autograd.grad(ours, wanted, seed), torch.autograd.grad(plain, wanted, seed), strict=True):
        torch.testing.assert_close(a, b, atol=30 * TOLERANCE[dtype], rtol=30 * TOLERANCE[dtype])


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


def test_bfloat16_autocast_keeps_the_stream_in_fp32():
    layer, x = Mona(12).eval(), torch.randn(1, 6, 12, requires_grad=True)
    with torch.autocast('cpu', torch.bfloat16):
        out = layer(x, (2, 3))
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, layer(x, (2, 3)), atol=1e-2, rtol=1e-2)
