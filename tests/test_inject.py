import copy

import mmpretrain.models
import pytest
import torch
from mmpretrain.models.utils import WindowMSAV2
from tiny import LIBRARIES, MONA, image, swin, weights

import mmpeft
from mmpeft.hosts import Host


@pytest.mark.parametrize('library', LIBRARIES)
def test_pretrained_keys_and_values_survive(library):
    plain = swin(library)
    backbone = copy.deepcopy(plain)
    mmpeft.inject(backbone, MONA)
    after = backbone.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in plain.state_dict().items())
    added = after.keys() - plain.state_dict().keys()
    assert all(mmpeft.is_adapter(name) for name in added) and len(added) == 10 * 16
    assert 'stages.0.blocks.0.adapters.after_attn.down.weight' in added


def test_a_zero_up_projection_leaves_the_frozen_output_bit_for_bit():
    plain = swin()
    plain.eval()
    backbone = copy.deepcopy(plain)
    mmpeft.inject(backbone, MONA)
    for name, parameter in backbone.named_parameters():
        if mmpeft.is_adapter(name) and '.up.' in name:
            torch.nn.init.zeros_(parameter)
    x = image()
    assert all(torch.equal(a, b) for a, b in zip(plain(x), backbone(x), strict=True))


def test_starting_values_depend_on_seed_and_place_and_leave_the_generator_alone():
    def start(method, seed):
        backbone = swin()
        torch.manual_seed(seed)
        mmpeft.inject(backbone, method)
        return {n: v for n, v in weights(backbone).items() if mmpeft.is_adapter(n)}, torch.rand(1)

    everywhere, after = start(MONA, 5)
    again, _ = start(dict(MONA, blocks=r'stages\.3'), 5)
    other, _ = start(MONA, 6)
    torch.manual_seed(5)
    assert torch.equal(after, torch.rand(1))
    assert again and all(torch.equal(value, everywhere[name]) for name, value in again.items())
    name = 'stages.3.blocks.0.adapters.after_ffn.down.weight'
    assert not torch.equal(everywhere[name], other[name])
    assert not torch.equal(everywhere[name], everywhere[name.replace('after_ffn', 'after_attn')])


def test_starting_values_do_not_depend_on_dtype():
    backbone, double = swin(), swin().double()
    for model in (backbone, double):
        mmpeft.inject(model, MONA)
    name = 'stages.3.blocks.0.adapters.after_ffn.down.weight'
    assert double.state_dict()[name].dtype == torch.float64
    assert torch.equal(double.state_dict()[name].float(), backbone.state_dict()[name])


def test_sites_and_blocks_choose_the_places():
    backbone = swin()
    mmpeft.inject(backbone, dict(MONA, sites=['after_ffn'], blocks=r'stages\.[13]'))
    owners = [name for name, module in backbone.named_modules() if isinstance(module, Host) and module.adapters]
    assert owners == ['stages.1.blocks.0', 'stages.1.blocks.1', 'stages.3.blocks.0']
    assert all(list(backbone.get_submodule(name).adapters) == ['after_ffn'] for name in owners)


def test_several_methods_go_to_distinct_places():
    backbone = swin()
    first, second = dict(MONA, blocks=r'stages\.0'), dict(MONA, bottleneck=6, blocks=r'stages\.3')
    mmpeft.inject(backbone, [first, second])
    assert backbone.adapter_methods == (first, second)
    assert backbone.stages[0].blocks[0].adapters.after_attn.down.out_features == 4
    assert backbone.stages[3].blocks[0].adapters.after_attn.down.out_features == 6


def test_frozen_inserts_nothing_and_trains_nothing():
    backbone = swin()
    mmpeft.inject(backbone, dict(type='Frozen'))
    mmpeft.freeze(backbone)
    assert mmpeft.count_parameters(backbone).trainable == 0 == mmpeft.count_parameters(backbone).adapter


REFUSED = {
    'unknown method': (dict(type='Nona'), ValueError, "Unknown method 'Nona'; known methods: Mona, "),
    'no type': (dict(bottleneck=4), ValueError, 'Unknown method None'),
    'unknown option': (
        dict(type='Mona', width=4),
        ValueError,
        "no option 'width'; its options: sites, blocks, bottleneck",
    ),
    'unknown site': (dict(MONA, sites=['qkw']), ValueError, "Unknown site 'qkw'; known sites: before_attn"),
    'sites as text': (dict(MONA, sites='after_attn'), ValueError, "sites is a list of places, .* got 'after_attn'"),
    'no site': (dict(MONA, sites=[]), ValueError, r'sites is a list of places, .* got \[\]'),
    'no pattern': (dict(MONA, blocks='('), ValueError, r"blocks is a regular expression, got '\(': missing \)"),
    'pattern of numbers': (dict(MONA, blocks=3), ValueError, 'blocks is a regular expression, got 3'),
    'size as text': (dict(type='Mona', bottleneck='64'), ValueError, "Mona takes bottleneck as int, got '64'"),
    'size as bool': (dict(type='Mona', bottleneck=True), ValueError, 'Mona takes bottleneck as int, got True'),
    'number as text': (dict(type='Mona', dropout='no'), ValueError, "Mona takes dropout as float, got 'no'"),
    'flag as number': (dict(type='Mona', lean=1), ValueError, 'Mona takes lean as bool, got 1'),
    'targets as text': (dict(type='LoRA', targets='qv'), ValueError, r"LoRA takes targets as tuple\[str.*, got 'qv'"),
    'bad size': (dict(type='Mona', bottleneck=-1), ValueError, 'bottleneck=-1'),
    'no block': (
        dict(MONA, blocks='layers'),
        ValueError,
        r"No place of Mona matches 'layers'; its places: stages\.0\.blocks\.0",
    ),
    'shared place': ([MONA, MONA], ValueError, r'Mona and Mona cannot share stages\.0\.blocks\.0\.after_attn'),
    'not a dict': (
        'Mona',
        ValueError,
        "A method is a dict such as dict\\(type='Mona'\\), or a list of such; got 'Mona'",
    ),
    'empty list': ([], ValueError, 'got \\[\\]'),
}


@pytest.mark.parametrize('case', REFUSED)
def test_what_does_not_fit_is_refused_before_the_model_changes(case):
    method, error, message = REFUSED[case]
    backbone = swin()
    before, classes = weights(backbone), [type(module) for module in backbone.modules()]
    with pytest.raises(error, match=message):
        mmpeft.inject(backbone, method)
    assert before.keys() == backbone.state_dict().keys()
    assert classes == [type(module) for module in backbone.modules()]


def test_injecting_twice_is_refused():
    backbone = swin()
    mmpeft.inject(backbone, MONA)
    with pytest.raises(ValueError, match='carries Mona already; inject all methods in one call'):
        mmpeft.inject(backbone, MONA)


def test_an_unknown_backbone_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r'No host describes torch.*Linear; known backbones: mmdet\.models'):
        mmpeft.inject(torch.nn.Linear(2, 2), MONA)


def test_a_detector_is_refused_with_a_hint_at_its_backbone():
    detector = torch.nn.Module()
    detector.backbone = swin()
    with pytest.raises(ValueError, match=r'Pass its \.backbone'):
        mmpeft.inject(detector, MONA)


def test_blocks_with_other_parts_than_the_host_knows_are_refused_before_the_model_changes():
    blocks = dict(attn_cfgs=dict(window_msa=WindowMSAV2))
    backbone = mmpretrain.models.SwinTransformer(
        arch=dict(embed_dims=8, depths=(1, 1), num_heads=(1, 1)), out_indices=(1,), stage_cfgs=dict(block_cfgs=blocks)
    )
    classes = [type(module) for module in backbone.modules()]
    with pytest.raises(ValueError, match=r'stages\.0\.blocks\.0 takes no adapters: its attn\.w_msa is a .*WindowMSAV2'):
        mmpeft.inject(backbone, MONA)
    assert classes == [type(module) for module in backbone.modules()]


def test_norms_of_another_kind_are_refused_by_name():
    backbone = swin()
    backbone.stages[0].blocks[0].norm1 = torch.nn.BatchNorm1d(8)
    with pytest.raises(ValueError, match=r'blocks\.0 takes no adapters: its norm1 is a torch.*BatchNorm1d, and its'):
        mmpeft.inject(backbone, MONA)


def test_attention_that_no_host_knows_stays_stock_where_only_the_base_trains():
    blocks = dict(attn_cfgs=dict(window_msa=WindowMSAV2))
    sizes = dict(arch=dict(embed_dims=8, depths=(1, 1), num_heads=(1, 1)), out_indices=(1,), window_size=3)
    backbone = mmpretrain.models.SwinTransformer(**sizes, pad_small_map=True, stage_cfgs=dict(block_cfgs=blocks))
    plain, x = copy.deepcopy(backbone), image()
    mmpeft.inject(backbone, dict(type='BitFit'))
    mmpeft.freeze(backbone)
    assert torch.equal(backbone(x)[0], plain(x)[0])


def test_an_adapter_of_tokens_goes_to_leaf_sites_too():
    backbone = swin()
    mmpeft.inject(backbone, dict(type='Adapter', bottleneck=4, sites=['norm1', 'fc1']))
    mmpeft.freeze(backbone)
    sum(out.sum() for out in backbone(image())).backward()
    assert all(p.grad is not None for name, p in backbone.named_parameters() if mmpeft.is_adapter(name))
