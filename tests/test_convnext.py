import copy
from itertools import product

import pytest
import torch
from mmengine.registry import MODELS
from mmpretrain.models.utils import LayerNorm2d
from tiny import convnext, image, weights

import mmpeft
from mmpeft.hosts import adapt, adapters_of

KINDS = {'linear': dict(linear_pw_conv=True), 'convolutions': dict(linear_pw_conv=False)}
EVERYWHERE = dict(
    type='SSF',
    sites=['patch_embed', 'patch_norm', 'depthwise', 'norm2', 'fc1', 'fc2', 'merge_norm', 'reduction', 'output_norm'],
)
METHODS = {
    'SSF': dict(type='SSF'),
    'SSF everywhere': EVERYWHERE,
    'LoRA': dict(type='LoRA', rank=2, targets=('fc1', 'fc2')),
    'LoRA of the patches': dict(type='LoRA', rank=2, targets=('patch_embed',)),
}
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-11}


def ssf_of(backbone):
    return {place: adapter for place, adapter in adapters_of(backbone) if isinstance(adapter, mmpeft.methods.SSF)}


def test_ssf_sits_after_every_layer_except_between_the_stages():
    backbone = convnext()
    mmpeft.inject(backbone, dict(type='SSF'))
    places = list(ssf_of(backbone))
    block = ['depthwise_conv.depthwise', 'norm.norm2', 'pointwise_conv1.fc1', 'pointwise_conv2.fc2']
    blocks = [f'stages.{i}.{j}' for i, depth in enumerate((1, 2, 1, 1)) for j in range(depth)]
    stem = ['downsample_layers.0.0.patch_embed', 'downsample_layers.0.1.patch_norm']
    outputs = [f'norm{i}.output_norm' for i in range(4)]
    assert sorted(places) == sorted([*stem, *(f'{b}.{leaf}' for b in blocks for leaf in block), *outputs])
    # 14 vectors of C a block, 4 in the stem, 2 an output; channels are 8, 8, 16, 16.
    assert mmpeft.count_parameters(backbone).adapter == 14 * (8 + 2 * 8 + 16 + 16) + 4 * 8 + 2 * (8 + 8 + 16 + 16)


@pytest.mark.parametrize('with_cp', [False, True])
@pytest.mark.parametrize('kind', KINDS)
def test_an_ssf_of_ones_and_zeros_leaves_the_output_bit_for_bit(kind, with_cp):
    plain = convnext(**KINDS[kind], with_cp=with_cp)
    backbone = copy.deepcopy(plain)
    mmpeft.inject(backbone, EVERYWHERE)
    for ssf in ssf_of(backbone).values():
        torch.nn.init.ones_(ssf.scale)
        torch.nn.init.zeros_(ssf.shift)
    x = image(64, 96)
    for ours, stock in zip(backbone(x), plain(x), strict=True):
        assert torch.equal(ours, stock) and ours.is_contiguous()


@pytest.mark.parametrize('site', EVERYWHERE['sites'])
@pytest.mark.parametrize('kind', KINDS)
def test_each_site_scales_channels_even_where_a_map_is_as_wide_as_it_has_channels(kind, site):
    backbone = convnext(**KINDS[kind])
    mmpeft.inject(backbone, dict(type='SSF', sites=[site]))
    place, ssf = next(iter(ssf_of(backbone).items()))
    torch.nn.init.zeros_(ssf.scale)
    torch.nn.init.zeros_(ssf.shift)
    ssf.shift.data[3] = 1.0
    outputs = []
    backbone.get_submodule(place.rpartition('.')[0]).register_forward_hook(lambda *args: outputs.append(args[2]))
    backbone(image(32, 32))
    (out,) = outputs
    last = isinstance(backbone.get_submodule(place.rpartition('.')[0]), torch.nn.Linear) or (
        site == 'norm2' and kind == 'linear'
    )
    maps = out.movedim(-1, 1) if last else out
    assert (maps[:, 3] == 1).all() and (maps[:, :3] == 0).all() and (maps[:, 4:] == 0).all()


@pytest.mark.parametrize('dtype', TOLERANCE)
@pytest.mark.parametrize('kind, method', product(KINDS, METHODS))
def test_merging_leaves_a_stock_model_with_equal_outputs(kind, method, dtype):
    plain, x = convnext(**KINDS[kind]).to(dtype), image(32, 32).to(dtype)
    backbone = copy.deepcopy(plain)
    mmpeft.inject(backbone, METHODS[method])
    for name, parameter in backbone.named_parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.2 * mmpeft.is_adapter(name))
    backbone.eval()
    expected = backbone(x)
    assert mmpeft.merge(backbone).is_stock
    for ours, before in zip(backbone(x), expected, strict=True):
        assert ((ours - before).norm() / before.norm()).item() <= TOLERANCE[dtype]
    assert [type(m) for m in backbone.modules()] == [type(m) for m in plain.modules()]
    plain.load_state_dict(backbone.state_dict(), strict=True)


WIRED = {**KINDS, 'V2': dict(use_grn=True, layer_scale_init_value=0.0)}


@pytest.mark.parametrize('with_cp', [False, True])
@pytest.mark.parametrize('kind', WIRED)
def test_an_empty_block_computes_what_the_stock_block_does_bit_for_bit(kind, with_cp):
    plain = convnext(**WIRED[kind], with_cp=with_cp)
    host = copy.deepcopy(plain)
    adapt(host)
    for name in host.blocks_of(host):
        adapt(host.get_submodule(name))
    x = image(64, 96)
    for ours, stock in zip(host(x), plain(x), strict=True):
        assert torch.equal(ours, stock)
    for model in (host, plain):
        sum(out.square().sum() for out in model(x)).backward()
    grads = dict(host.named_parameters())
    for name, parameter in plain.named_parameters():
        torch.testing.assert_close(grads[name].grad, parameter.grad, rtol=1e-4 * with_cp, atol=1e-5 * with_cp)


@pytest.mark.parametrize('kind', WIRED)
def test_adapters_see_the_map_of_a_block_as_tokens_on_its_grid(kind):
    backbone = convnext(**WIRED[kind])
    mmpeft.inject(backbone, dict(type='Mona', bottleneck=4, dropout=0.0, sites=['ffn_branch', 'after_ffn']))
    block, x, seen = backbone.stages[1][0], torch.randn(2, 8, 6, 10), []
    for site in ('ffn_branch', 'after_ffn'):
        block.adapters[site].register_forward_hook(lambda _, args, out: seen.append((args[0], out, args[1])))
    out = block(x)
    (branch, added, first), (stream, result, second) = seen
    assert first == second == (6, 10)
    for tokens, maps in ((branch, block.branch(x)), (stream, x + as_maps(added)), (result, out)):
        torch.testing.assert_close(as_maps(tokens), maps)


def as_maps(tokens):
    return tokens.transpose(1, 2).unflatten(2, (6, 10))


def test_lora_goes_to_the_linear_layers_unless_told_otherwise():
    backbone = convnext()
    mmpeft.inject(backbone, dict(type='LoRA', rank=2))
    assert {place.rpartition('.')[2] for place, _ in adapters_of(backbone)} == {'fc1', 'fc2'}
    with pytest.raises(ValueError, match="ConvNeXt has no site 'qkv'; its sites: "):
        mmpeft.inject(convnext(), dict(type='LoRA', targets=('q', 'v')))


def test_cvpt_is_refused_at_a_block_without_attention():
    with pytest.raises(
        ValueError, match=r'CVPT needs the attention of its block, which is not known at stages\.0\.0\.'
    ):
        mmpeft.inject(convnext(), dict(type='CVPT', place='after_ffn'))


@pytest.mark.parametrize('part', ['norm', ''])
def test_a_block_or_a_norm_of_another_class_is_refused(part):
    backbone = convnext()
    owner = backbone.get_submodule(f'stages.1.0.{part}'.rstrip('.'))
    owner.__class__ = type('Own', (type(owner),), dict(forward=lambda self, x: x, __module__='own'))
    with pytest.raises(ValueError, match=r'stages\.1\.0(, a| takes no adapters: its norm is a) own\.Own'):
        mmpeft.inject(backbone, dict(type='SSF'))


def test_a_method_of_tokens_is_refused_at_a_convolution():
    with pytest.raises(ValueError, match=r'Adapter works on tokens, and .*\.pointwise_conv1 is a convolution'):
        mmpeft.inject(convnext(**KINDS['convolutions']), dict(type='Adapter', sites=['fc1']))


def test_a_pooled_output_works_too():
    backbone = convnext(gap_before_final_norm=True, out_indices=(3,))
    mmpeft.inject(backbone, dict(type='SSF'))
    assert backbone(image(32, 32))[0].shape == (2, 16)


def test_norm_tuning_finds_its_norms():
    backbone = convnext()
    mmpeft.inject(backbone, dict(type='NormTuning'))
    norms = [name for name, module in backbone.named_modules() if isinstance(module, LayerNorm2d)]
    assert mmpeft.trained_names(backbone) == {f'{norm}.{leaf}' for norm in norms for leaf in ('weight', 'bias')}


def test_initialising_keeps_a_base_that_has_its_values():
    backbone = convnext()
    mmpeft.inject(backbone, dict(type='SSF'))
    before = weights(backbone)
    backbone.init_weights()
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())


def test_a_base_without_values_is_drawn_as_in_the_stock_backbone_and_adapters_keep_their_start():
    backbone = MODELS.build(
        dict(
            type='mmpeft.AdaptedBackbone',
            method=dict(type='SSF'),
            backbone=dict(type='mmpretrain.ConvNeXt', arch=dict(depths=(1, 1), channels=(8, 16)), out_indices=(0, 1)),
        )
    )
    before = weights(backbone)
    backbone.init_weights()
    after = backbone.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert 'stages.1.0.pointwise_conv1.weight' in changed and not any(map(mmpeft.is_adapter, changed))
