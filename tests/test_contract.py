"""Every method in every host: what a user may rely on whatever the combination."""

import copy
from dataclasses import dataclass
from itertools import product

import pytest
import torch
from mmengine.runner.activation_checkpointing import turn_on_activation_checkpointing
from tiny import BACKBONES, BIASED, CONVNEXTS, HOSTS, image, load, weights

import mmpeft
from mmpeft.methods import METHODS, Tuning

OPTIONS = {
    'Mona': dict(bottleneck=4, dropout=0.0),
    'CVPT': dict(num_prompts=3, dropout=0.0),
    'VPT': dict(num_prompts=3, dropout=0.0),
    'LoRA': dict(rank=2, targets=('q', 'v', 'patch_embed')),
    'Adapter': dict(bottleneck=4, dropout=0.0),
    'AdaptFormer': dict(bottleneck=4, dropout=0.0),
    'LoRand': dict(kernel=2, branches=2),
}
# How far the outputs move at the start, relative to the stock backbone's, on the tiny hosts: none, little, or a lot.
EXACT_AT_START = {'LoRA', 'BitFit', 'NormTuning', 'Partial', 'Full', 'Frozen'}
START_BOUND = {'SSF': 0.3, 'Mona': 0.3, 'Adapter': 0.05, 'AdaptFormer': 0.05, 'CVPT': 2.0, 'VPT': 0.3, 'LoRand': 2.0}
FOLDS = {'SSF', 'LoRA', 'BitFit', 'NormTuning', 'Partial', 'Full', 'Frozen'}
# What folds in other hosts: attention by the cosine, or with rotations, has no place for a shift of the keys.
STAYS = {('mmpretrain SwinV2', 'SSF'), ('timm SwinV2', 'SSF'), ('timm EVA', 'SSF')}
WITH_PROMPTS = [name for name in HOSTS if name.endswith(('ViT', 'DeiT', 'DINOv2', 'DeiT3', 'timm DINOv3', 'timm EVA'))]
# Pairs that make no sense, with what injecting says.
REFUSED = {(host, 'VPT'): "no site 'input'" for host in BACKBONES if host not in WITH_PROMPTS}
REFUSED |= {(host, 'CVPT'): "no site 'after_attn'" for host in CONVNEXTS}
PAIRS = [pair for pair in product(BACKBONES, METHODS) if pair not in REFUSED]
OF_MM = [name for name in BACKBONES if not name.startswith('timm ')]
CHECKPOINTED = [
    name for name in OF_MM if name.endswith(('Swin', 'SwinV2')) or name in (*CONVNEXTS, 'mmseg ViT', 'mmseg MiT')
]


@dataclass
class Case:
    plain: torch.nn.Module
    adapted: torch.nn.Module
    method: dict


def build(host: str, method: str, **options) -> Case:
    options |= BIASED.get(host, {})
    plain = BACKBONES[host](**options)
    adapted = copy.deepcopy(plain)
    config = dict(type=method, **OPTIONS.get(method, {}))
    if method == 'LoRA' and host in CONVNEXTS:  # no attention
        config.update(targets=('fc1', 'fc2', 'patch_embed'))
    mmpeft.inject(adapted, config)
    mmpeft.freeze(adapted)
    return Case(plain, adapted, config)


each_pair = pytest.mark.parametrize('host, method', PAIRS)


def loss(backbone, x):
    return sum(out.square().mean() for out in backbone(x))


@each_pair
def test_a_step_changes_what_the_method_declares_and_no_other_bit(host, method):
    case = build(host, method)
    declared = mmpeft.trained_names(case.adapted)
    assert {n for n, p in case.adapted.named_parameters() if p.requires_grad} == declared
    assert case.plain.state_dict().keys() <= case.adapted.state_dict().keys()
    before = weights(case.adapted)
    assert all(torch.equal(value, before[name]) for name, value in case.plain.state_dict().items())
    if not declared:
        return
    optimizer = torch.optim.AdamW(case.adapted.parameters(), lr=0.01, weight_decay=0.1)
    loss(case.adapted, image(40, 48)).backward()
    # A parameter outside the outputs has no gradient in the stock backbone either.
    loss(case.plain, image(40, 48)).backward()
    unused = {name for name, p in case.plain.named_parameters() if p.grad is None}
    assert {n for n, p in case.adapted.named_parameters() if p.grad is not None} == declared - unused
    optimizer.step()
    after = case.adapted.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed <= declared and changed


@each_pair
def test_the_start_is_as_near_to_the_base_as_the_method_says(host, method):
    case = build(host, method)
    case.plain.eval()
    case.adapted.eval()
    x = image(40, 48)
    for ours, stock in zip(case.adapted(x), case.plain(x), strict=True):
        distance = ((ours - stock).norm() / stock.norm()).item()
        if method in EXACT_AT_START:
            assert distance <= 1e-6
        else:
            assert 0 < distance <= START_BOUND[method]


@each_pair
def test_saving_and_loading_is_exact(host, method):
    case, other = build(host, method), build(host, method)
    for parameter in case.adapted.parameters():
        parameter.data.add_(0.1)
    load(other.adapted, case.adapted.state_dict())
    case.adapted.eval()
    other.adapted.eval()
    x = image(40, 48)
    assert all(torch.equal(a, b) for a, b in zip(case.adapted(x), other.adapted(x), strict=True))


@each_pair
def test_a_deep_copy_is_independent(host, method):
    adapted = build(host, method).adapted
    adapted.eval()
    twin, x = copy.deepcopy(adapted), image(40, 48)
    expected = [out.clone() for out in twin(x)]
    for parameter in adapted.parameters():
        parameter.data.mul_(1.5)
    assert all(torch.equal(a, b) for a, b in zip(twin(x), expected, strict=True))


@each_pair
def test_merging_keeps_the_outputs_and_folds_what_the_method_promises(host, method):
    adapted = build(host, method).adapted
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data.add_(0.05 * torch.randn_like(parameter))
    adapted.eval()
    x = image(40, 48)
    expected = adapted(x)
    report = mmpeft.merge(adapted)
    assert report.is_stock == (method in FOLDS and (host, method) not in STAYS)
    for ours, before in zip(adapted(x), expected, strict=True):
        assert ((ours - before).norm() / before.norm()).item() <= 1e-5


@each_pair
def test_autocast_to_bfloat16_works_and_stays_near(host, method):
    adapted = build(host, method).adapted
    adapted.eval()
    x = image(40, 48)
    expected = adapted(x)
    with torch.autocast('cpu', torch.bfloat16):
        outputs = adapted(x)
        loss(adapted, x).backward() if mmpeft.trained_names(adapted) else None
    for ours, exact in zip(outputs, expected, strict=True):
        assert ((ours.float() - exact).norm() / exact.norm()).item() <= 0.05
    assert all(torch.isfinite(p.grad).all() for p in adapted.parameters() if p.grad is not None)


@pytest.mark.parametrize('host, method', [pair for pair in PAIRS if pair[0] in CHECKPOINTED])
def test_the_backbones_own_checkpointing_gives_the_same_gradients(host, method):
    plain, checkpointed = build(host, method).adapted, build(host, method, with_cp=True).adapted
    if not mmpeft.trained_names(plain):
        return
    load(checkpointed, plain.state_dict())
    x = image(40, 48)
    for model in (plain, checkpointed):
        loss(model, x).backward()
    gradients = {n: p.grad for n, p in checkpointed.named_parameters()}
    for parameter_name, parameter in plain.named_parameters():
        assert (parameter.grad is None) == (gradients[parameter_name] is None)
        if parameter.grad is not None:
            torch.testing.assert_close(gradients[parameter_name], parameter.grad, rtol=1e-4, atol=1e-6)


@each_pair
def test_mmengines_checkpointing_inside_is_refused(host, method):
    adapted = build(host, method).adapted
    turn_on_activation_checkpointing(adapted, adapted.blocks_of(adapted)[:1])
    with pytest.raises(RuntimeError, match='activation_checkpointing wraps .*(with_cp|recompute_ffn)=True'):
        adapted(image(40, 48))


@pytest.mark.parametrize('name', [name for name, cls in METHODS.items() if not issubclass(cls, Tuning)])
def test_the_matrix_knows_every_method(name):
    assert name in START_BOUND or name in EXACT_AT_START


@pytest.mark.parametrize('host, method', REFUSED)
def test_a_pair_that_makes_no_sense_raises(host, method):
    with pytest.raises(ValueError, match=REFUSED[host, method]):
        build(host, method)


NONSENSE = {
    'Mona at a leaf': (dict(type='Mona', sites=['norm1']), "Mona needs the grid of its tokens, .* leaf site 'norm1'"),
    'CVPT with sites': (dict(type='CVPT', sites=['norm1']), "CVPT takes no sites: its option 'place' says where"),
    'LoRA with sites': (dict(type='LoRA', sites=['proj']), "LoRA takes no sites: its option 'targets' says where"),
    'CVPT with LoRA': ([dict(type='CVPT'), dict(type='LoRA')], 'CVPT at .* reads .*, which another method changes'),
    'CVPT with BitFit': ([dict(type='CVPT'), dict(type='BitFit')], 'CVPT at .* reads .*, which another method changes'),
    'SSF with SSF': ([dict(type='SSF'), dict(type='SSF', sites=['fc1'])], 'SSF and SSF cannot share'),
}


@pytest.mark.parametrize('host', HOSTS)
@pytest.mark.parametrize('case', NONSENSE)
def test_a_combination_that_makes_no_sense_raises(host, case):
    config, message = NONSENSE[case]
    with pytest.raises(ValueError, match=message):
        mmpeft.inject(HOSTS[host](), config)
