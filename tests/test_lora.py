import pytest
import torch
import torch.nn.functional as F
from tiny import convnext, mmseg_vit, swin
from torch import nn

import mmpeft
from mmpeft.hosts import adapt, adapters_of
from mmpeft.methods.lora import LoRA

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-11}


def spread(layer: LoRA) -> LoRA:
    """A change of ordinary size: B starts at zero."""
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    return layer


def relative_error(a, b):
    return ((a - b).norm() / b.norm()).item()


@pytest.mark.parametrize('targets', [('q',), ('k',), ('q', 'v'), ('q', 'k', 'v')])
def test_each_target_of_a_fused_projection_gets_its_own_product_and_the_others_zero(targets):
    layer, x = spread(LoRA(6, 12, rank=2, alpha=3, targets=targets)).double(), torch.randn(2, 5, 6, dtype=torch.float64)
    parts = dict(zip('qkv', layer(x).chunk(3, dim=-1), strict=True))
    for i, target in enumerate(targets):
        down, up = layer.lora_A[2 * i : 2 * i + 2], layer.lora_B[4 * i : 4 * i + 4]
        torch.testing.assert_close(parts[target], 1.5 * (x @ down.T) @ up.T)
    assert all(not parts[name].any() for name in set('qkv') - set(targets))


def test_the_order_in_which_targets_are_named_does_not_matter():
    layer, other = LoRA(6, 12, rank=2, targets=('v', 'q')), LoRA(6, 12, rank=2, targets=('q', 'v'))
    spread(layer)
    other.load_state_dict(layer.state_dict())
    x = torch.randn(3, 6)
    assert torch.equal(layer(x), other(x))


def test_without_targets_the_whole_output_changes():
    layer, x = spread(LoRA(6, 7, rank=2, alpha=4, targets=None)).double(), torch.randn(3, 6, dtype=torch.float64)
    torch.testing.assert_close(layer(x), 2 * x @ (layer.lora_B @ layer.lora_A).T)


def test_factors_of_another_rank_change_the_scale_and_not_alpha():
    layer, x = spread(LoRA(6, 12, rank=3, alpha=5)).double(), torch.randn(3, 6, dtype=torch.float64)
    state, before = {name: tensor.clone() for name, tensor in layer.state_dict().items()}, layer(x)
    layer.set_rank(6)
    twice = {name: torch.cat([part] * 2, 1) for name, part in state.items() if name == 'lora_B'}
    twice['lora_A'] = torch.cat([part for part in state['lora_A'].split(3) for _ in range(2)])
    layer.load_state_dict(twice)
    torch.testing.assert_close(layer(x), before)
    layer.set_rank(3)
    layer.load_state_dict(state)
    assert torch.equal(layer(x), before)


@pytest.mark.parametrize('targets', [('q', 'v'), None])
def test_it_starts_as_no_change_with_a_random_down_projection(targets):
    layer = LoRA(400, 1200, targets=targets)
    assert not layer(torch.randn(3, 400)).any()
    assert 0.99 / 20 < layer.lora_A.abs().max() <= 1 / 20


def test_leaf_names_and_published_counts():
    layer = LoRA(96, 288)
    assert {name: tuple(p.shape) for name, p in layer.named_parameters()} == {
        'lora_A': (128, 96),
        'lora_B': (192, 64),
    }
    for embed, expected in ((128, 3_080_192), (192, 4_620_288)):
        dims = [embed * 2**stage for stage, blocks in enumerate((2, 2, 18, 2)) for _ in range(blocks)]
        assert sum(p.numel() for dim in dims for p in LoRA(dim, 3 * dim).parameters()) == expected


def test_both_factors_get_their_gradient():
    layer = spread(LoRA(6, 12, rank=2)).double()
    x = torch.randn(3, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda *_: layer(x), (x, *layer.parameters()))


@pytest.mark.parametrize('dtype', TOLERANCE)
@pytest.mark.parametrize('targets', [('q', 'v'), ('k',), None])
@pytest.mark.parametrize('bias', [True, False])
def test_a_linear_layer_takes_it_up(dtype, targets, bias):
    layer = spread(LoRA(8, 24, rank=4, alpha=2, targets=targets)).to(dtype)
    linear, x = nn.Linear(8, 24, bias=bias, dtype=dtype), torch.randn(3, 5, 8, dtype=dtype)
    folded = F.linear(x, *layer.fold(linear.weight, linear.bias))
    assert relative_error(folded, linear(x) + layer(x)) < TOLERANCE[dtype]


CONVOLUTIONS = {
    'patches': dict(stride=3),
    'without bias': dict(stride=3, bias=False),
    'stride and padding': dict(stride=2, padding=(1, 2)),
    'reflection': dict(padding=1, padding_mode='reflect'),
    'dilation': dict(dilation=2, padding='same'),
    'groups': dict(groups=2),
}


@pytest.mark.parametrize('dtype', TOLERANCE)
@pytest.mark.parametrize('case', CONVOLUTIONS)
def test_a_convolution_changes_by_the_product_as_its_kernel_and_takes_it_up(dtype, case):
    options = CONVOLUTIONS[case]
    conv, x = nn.Conv2d(4, 6, 3, dtype=dtype, **options), torch.randn(2, 4, 11, 9, dtype=dtype)
    changed = nn.Conv2d(4, 6, 3, dtype=dtype, **options)
    layer = spread(LoRA(conv.weight[0].numel(), 6, rank=2, alpha=3, targets=None)).to(dtype)
    changed.load_state_dict(
        {**conv.state_dict(), 'weight': conv.weight + 1.5 * (layer.lora_B @ layer.lora_A).view_as(conv.weight)}
    )
    folded = layer.fold(conv.weight, conv.bias)
    adapt(conv)
    conv.adapters['patch_embed'] = layer
    assert relative_error(conv(x), changed(x)) < TOLERANCE[dtype]
    assert relative_error(changed._conv_forward(x, *folded), conv(x)) < TOLERANCE[dtype]


@pytest.mark.parametrize('build, values', [(swin, 3 * 4 * 4), (mmseg_vit, 3 * 8 * 8), (convnext, 3 * 4 * 4)])
def test_the_patch_embedding_has_the_rank_that_was_asked_for(build, values):
    backbone = build()
    mmpeft.inject(backbone, dict(type='LoRA', rank=3, targets=['patch_embed']))
    (layer,) = (adapter for _, adapter in adapters_of(backbone))
    channels = 16 if build is mmseg_vit else 8
    assert {name: tuple(p.shape) for name, p in layer.named_parameters()} == {
        'lora_A': (3, values),
        'lora_B': (channels, 3),
    }


def test_the_patch_embedding_is_left_alone_by_default():
    backbone = swin()
    mmpeft.inject(backbone, dict(type='LoRA', rank=2))
    assert {place.rpartition('.')[2] for place, _ in adapters_of(backbone)} == {'qkv'}


def test_folding_keeps_the_dtype_of_the_weight_and_the_bias_as_it_is():
    linear = nn.Linear(4, 12, dtype=torch.bfloat16)
    weight, bias = LoRA(4, 12, rank=2).fold(linear.weight, linear.bias)
    assert weight.dtype == torch.bfloat16 and bias is linear.bias
    assert torch.equal(weight, linear.weight)


def test_places_of_targets():
    assert LoRA.places({'rank': 4}) == {'qkv': {'rank': 4, 'targets': ('q', 'v')}}
    assert LoRA.places({'targets': ['v', 'fc1', 'q', 'proj']}) == {
        'qkv': {'targets': ('q', 'v')},
        'proj': {'targets': None},
        'fc1': {'targets': None},
    }
    assert LoRA.places({'targets': ['fc2'], 'alpha': 2}) == {'fc2': {'targets': None, 'alpha': 2}}
    assert LoRA.places({'targets': ['patch_embed']}) == {'patch_embed': {'targets': None}}


@pytest.mark.parametrize('targets', [('head',), (), 'proj', None])
def test_places_of_unknown_targets_are_an_error(targets):
    with pytest.raises(ValueError, match='targets .*q, k, v, proj, fc1, fc2, patch_embed, got'):
        LoRA.places({'targets': targets})


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(rank=0), 'at least 1, got in_features=4, out_features=12, rank=0'),
        (dict(alpha=0), 'alpha above 0, got 0'),
        (dict(targets=('q', 'proj')), r"targets q, k, v, got \('q', 'proj'\)"),
        (dict(targets=()), r'targets q, k, v, got \(\)'),
        (dict(out_features=13), '13 output channels do not split into q, k and v'),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        LoRA(**{'in_features': 4, 'out_features': 12, **options})


def test_bfloat16_autocast_gives_a_bfloat16_change():
    layer, x = LoRA(8, 24, rank=4), torch.randn(3, 8)
    nn.init.normal_(layer.lora_B)
    with torch.autocast('cpu', torch.bfloat16):
        change = layer(x)
    assert change.dtype == torch.bfloat16
    torch.testing.assert_close(change.float(), layer(x), atol=3e-2, rtol=3e-2)


@pytest.mark.parametrize('autocast', [False, True])
def test_the_factors_of_many_layers_made_together_change_no_bit(autocast):
    layers = [LoRA(8, 12, rank=2, alpha=3), LoRA(8, 12, rank=3, targets=None), LoRA(8, 12, rank=4)]
    for layer in layers:
        spread(layer)
    x = torch.randn(5, 8)
    with torch.autocast('cpu', torch.bfloat16, enabled=autocast):
        made = LoRA.together(layers)
        ours, alone = (
            [layer(x, factors) for layer, factors in zip(layers, kinds, strict=True)] for kinds in (made, [None] * 3)
        )
    for a, b in zip(ours[:2], alone, strict=False):  # what the loss does not reach has no gradient
        assert torch.equal(a, b)
        b.square().sum().backward()
    expected = [[parameter.grad for parameter in layer.parameters()] for layer in layers]
    for layer in layers:
        layer.zero_grad()
    sum(a.square().sum() for a in ours[:2]).backward()
    for layer, grads in zip(layers[:2], expected, strict=False):
        assert all(map(torch.equal, grads, (parameter.grad for parameter in layer.parameters())))
    assert layers[2].lora_A.grad is None and layers[2].lora_B.grad is None
