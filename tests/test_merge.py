import copy
from itertools import product

import pytest
import torch
from test_contract import STAYS
from tiny import BIASED, HOSTS, MONA, image, load, swin, weights

import mmpeft
from mmpeft.merge import MergeReport

FOLDING = {
    'SSF': dict(type='SSF'),
    'LoRA': dict(type='LoRA', rank=2, targets=('q', 'v')),
    'LoRA everywhere': dict(type='LoRA', rank=2, targets=('q', 'k', 'proj', 'fc1', 'fc2', 'patch_embed')),
    'BitFit': dict(type='BitFit'),
    'NormTuning': dict(type='NormTuning'),
    'Partial': dict(type='Partial'),
    'SSF and NormTuning': [dict(type='SSF', sites=['fc1', 'fc2']), dict(type='NormTuning')],
}
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-11}
SSF_ON_MERGING = dict(type='SSF', sites=['merge_norm', 'reduction'])


def trained(backbone, method):
    """A backbone whose trained parameters are far from their start."""
    mmpeft.inject(backbone, method)
    mmpeft.freeze(backbone)
    for parameter in backbone.parameters():
        if parameter.requires_grad:
            parameter.data.add_(torch.randn_like(parameter) * 0.2)
    backbone.eval()
    return backbone


def check_outputs(merged, expected, dtype, x):
    for ours, theirs in zip(merged(x), expected, strict=True):
        assert ((ours - theirs).norm() / theirs.norm()).item() <= TOLERANCE[dtype]


@pytest.mark.parametrize('dtype', TOLERANCE)
@pytest.mark.parametrize('name, method', [pair for pair in product(HOSTS, FOLDING) if pair not in STAYS])
def test_merging_leaves_a_stock_model_with_equal_outputs(name, method, dtype):
    plain = HOSTS[name](**BIASED.get(name, {})).to(dtype)
    backbone, x = trained(copy.deepcopy(plain), FOLDING[method]), image(40, 48).to(dtype)
    expected = backbone(x)
    report = mmpeft.merge(backbone)
    assert report.is_stock and 'The model is a stock model.' in str(report)
    check_outputs(backbone, expected, dtype, x)
    assert [type(m) for m in backbone.modules()] == [type(m) for m in plain.modules()]
    assert [vars(m).keys() for m in backbone.modules()] == [vars(m).keys() for m in plain.modules()]
    load(plain, backbone.state_dict())
    assert all(p.requires_grad for p in backbone.parameters())


def test_merging_twice_changes_nothing():
    backbone = trained(swin(), FOLDING['SSF'])
    mmpeft.merge(backbone)
    before = weights(backbone)
    assert mmpeft.merge(backbone) == MergeReport()
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())


@pytest.mark.parametrize('dtype', TOLERANCE)
def test_the_shift_of_a_bias_free_reduction_folds_into_the_norm_before_it(dtype):
    plain = swin().to(dtype)
    backbone, x = trained(copy.deepcopy(plain), SSF_ON_MERGING), image().to(dtype)
    expected = backbone(x)
    assert mmpeft.merge(backbone).is_stock
    check_outputs(backbone, expected, dtype, x)
    plain.load_state_dict(backbone.state_dict(), strict=True)


def test_a_bias_that_the_stock_model_has_by_option_is_made_and_the_option_named():
    backbone, x = trained(HOSTS['mmseg ViT'](), dict(type='SSF')), image(40, 48)
    expected = backbone(x)
    report = mmpeft.merge(backbone)
    assert report.new_biases == ('patch_embed.projection.bias',) and report.options == ('patch_bias',)
    assert 'patch_embed.projection.bias had no bias to take the shift' in str(report)
    assert 'has to be built with patch_bias=True' in str(report) and not report.is_stock
    check_outputs(backbone, expected, torch.float32, x)
    HOSTS['mmseg ViT'](patch_bias=True).load_state_dict(backbone.state_dict(), strict=True)


@pytest.mark.parametrize('name', ['mmdet Swin', 'mmseg ViT', 'mmpretrain ViT'])
def test_attention_without_biases_gets_those_of_the_option(name):
    options = dict(qkv_bias=False, **BIASED.get(name, {}))
    backbone, x = trained(HOSTS[name](**options), dict(type='SSF', sites=['qkv', 'proj'])), image(40, 48)
    expected = backbone(x)
    assert mmpeft.merge(backbone).options == ('qkv_bias',)
    check_outputs(backbone, expected, torch.float32, x)
    HOSTS[name](**options | dict(qkv_bias=True)).load_state_dict(backbone.state_dict(), strict=True)


def test_a_shift_that_no_stock_bias_can_take_stays_in_its_adapter():
    plain = HOSTS['mmpretrain ViT'](patch_cfg=dict(bias=False))
    backbone, x = trained(plain, dict(type='SSF', sites=['patch_embed', 'fc1'])), image(40, 48)
    expected = backbone(x)
    report = mmpeft.merge(backbone)
    assert len(report.folded) == 3 and report.kept == ('patch_embed.projection.patch_embed',)
    assert not report.new_biases and backbone.adapter_methods == (dict(type='SSF', sites=['patch_embed']),)
    check_outputs(backbone, expected, torch.float32, x)


def test_of_two_configs_of_one_method_the_one_that_folds_is_gone():
    stays = dict(type='SSF', sites=['after_attn'], blocks=r'stages\.2')
    backbone = trained(swin(), [dict(type='SSF', sites=['fc1']), stays])
    mmpeft.merge(backbone)
    assert backbone.adapter_methods == (stays,)


def test_what_cannot_fold_stays_and_is_counted():
    backbone, x = trained(swin(), [dict(type='SSF', sites=['fc1']), MONA]), image()
    expected = backbone(x)
    report = mmpeft.merge(backbone)
    assert len(report.folded) == 5 and len(report.kept) == 10 and not report.is_stock
    assert '10 adapters stay' in str(report) and backbone.adapter_methods == (MONA,)
    check_outputs(backbone, expected, torch.float32, x)


def test_a_whole_model_is_merged_where_its_backbone_is():
    model = torch.nn.Module()
    model.backbone = trained(swin(), FOLDING['LoRA'])
    report = mmpeft.merge(model)
    assert report.folded[0] == 'backbone.stages.0.blocks.0.attn.w_msa.qkv.qkv'
    assert not any(mmpeft.is_adapter(name) for name in model.state_dict())
