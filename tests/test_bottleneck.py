import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmpeft.methods.bottleneck import Adapter, AdaptFormer, LoRand


def spread(layer: nn.Module) -> nn.Module:
    """Values of ordinary size everywhere, so that no part of the formula is too small to see."""
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.5)
    return layer.double()


def tokens(dim: int) -> torch.Tensor:
    return torch.randn(2, 5, dim, dtype=torch.float64, requires_grad=True)


def plain_adapter(layer, x):
    return x + layer.up(F.gelu(layer.down(x)))


def plain_adaptformer(layer, x):
    return layer.scale * layer.up(F.gelu(layer.down(x)))


def plain_lorand(layer, x):
    """Each matrix as the sum of its products, branch by branch."""

    def matrix(low):
        return sum(low.right[b] @ low.core[b] @ low.left[b] for b in range(len(low.core)))

    y = F.gelu(x @ matrix(layer.down).T + layer.down.bias)
    return x + y @ matrix(layer.up).T + layer.up.bias


@pytest.mark.parametrize(
    'layer, plain',
    [
        (Adapter(8, bottleneck=3, dropout=0), plain_adapter),
        (AdaptFormer(8, bottleneck=3, dropout=0, scale=0.7), plain_adaptformer),
        (LoRand(8, factor=3, branches=2, kernel=4), plain_lorand),
    ],
    ids=['Adapter', 'AdaptFormer', 'LoRand'],
)
def test_values_and_gradients_are_those_of_the_formula(layer, plain):
    layer, x = spread(layer), tokens(8)
    ours, expected = layer(x), plain(layer, x)
    torch.testing.assert_close(ours, expected)
    seed, wanted = torch.randn_like(ours), [x, *layer.parameters()]
    for a, b in zip(torch.autograd.grad(ours, wanted, seed), torch.autograd.grad(expected, wanted, seed), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(
    'method, per_block, swin_b, swin_l',
    [(Adapter, 2, 3_107_328, 4_659_456), (AdaptFormer, 1, 1_553_664, 2_329_728), (LoRand, 2, 2_370_816, 3_543_936)],
)
def test_published_counts_on_swin(method, per_block, swin_b, swin_l):
    for embed, expected in ((128, swin_b), (192, swin_l)):
        layers = [(blocks, method(embed * 2**stage)) for stage, blocks in enumerate((2, 2, 18, 2))]
        assert per_block * sum(n * p.numel() for n, layer in layers for p in layer.parameters()) == expected


@pytest.mark.parametrize('method', [Adapter, AdaptFormer, LoRand])
def test_leaf_names_are_down_and_up(method):
    assert [name for name, _ in method(8).named_children()] == ['down', 'up']
    assert {name.split('.')[0] for name, _ in method(8).named_parameters()} == {'down', 'up'}


@pytest.mark.parametrize('method', [Adapter, AdaptFormer])
def test_trunc_normal_start(method):
    layer = method(384)
    for projection in (layer.down, layer.up):
        assert projection.weight.std().item() == pytest.approx(0.02, rel=0.05)
        assert not projection.bias.any()


@pytest.mark.parametrize('method', [Adapter, AdaptFormer])
def test_torch_start_keeps_the_defaults_of_linear(method):
    layer = method(384, init='torch')
    for projection in (layer.down, layer.up):
        bound = projection.in_features**-0.5
        assert 0.95 * bound < projection.weight.abs().max() <= bound
        assert 0.8 * bound < projection.bias.abs().max() <= bound


def test_lorand_starts_each_factor_as_a_linear_layer_and_the_bias_at_zero():
    layer = LoRand(384)
    for low in (layer.down, layer.up):
        for factor in (low.left, low.core, low.right):
            bound = factor.shape[-1] ** -0.5
            assert 0.9 * bound < factor.abs().max() <= bound
        assert not low.bias.any()


@pytest.mark.parametrize('method, is_identity', [(Adapter, True), (AdaptFormer, False), (LoRand, True)])
def test_a_zero_up_projection_leaves_the_skip_alone(method, is_identity):
    layer, x = spread(method(8)), tokens(8)
    for parameter in layer.up.parameters():
        nn.init.zeros_(parameter)
    assert torch.equal(layer(x), x if is_identity else torch.zeros_like(x))


def test_adaptformer_scales_by_a_tenth():
    layer, x = spread(AdaptFormer(8)).eval(), tokens(8)
    torch.testing.assert_close(layer(x), 0.1 * (plain_adapter(layer, x) - x))


@pytest.mark.parametrize('method', [Adapter, AdaptFormer])
def test_dropout_acts_on_a_tenth_of_the_bottleneck_in_training_alone(method):
    layer, x = method(8, bottleneck=2000), torch.randn(4, 8)
    dropped = (layer.train().hidden(x) == 0).float().mean().item()
    assert dropped == pytest.approx(0.1, abs=0.02)
    assert torch.equal(layer.eval()(x), layer(x))
    assert layer.hidden(x).all()


@pytest.mark.parametrize(
    'method, options, message',
    [
        (Adapter, dict(dim=8, bottleneck=0), 'Adapter needs .* at least 1, got dim=8, bottleneck=0'),
        (Adapter, dict(dim=8, dropout=1), r'dropout in \[0, 1\), got 1'),
        (Adapter, dict(dim=8, init='zero'), "initialisations trunc_normal, torch, got 'zero'"),
        (AdaptFormer, dict(dim=8, bottleneck=-1), 'AdaptFormer needs .* bottleneck=-1'),
        (AdaptFormer, dict(dim=8, scale=0), 'scale other than 0'),
        (LoRand, dict(dim=8, kernel=0), 'at least 1 .* kernel=0'),
        (LoRand, dict(dim=1), 'dim of at least factor, got dim=1, factor=2'),
    ],
)
def test_bad_options_are_named(method, options, message):
    with pytest.raises(ValueError, match=message):
        method(**options)


@pytest.mark.parametrize('method', [Adapter, LoRand])
def test_bfloat16_autocast_keeps_the_stream_in_fp32(method):
    layer, x = method(16).eval(), torch.randn(2, 5, 16)
    with torch.autocast('cpu', torch.bfloat16):
        out = layer(x)
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, layer(x), atol=2e-2, rtol=2e-2)
