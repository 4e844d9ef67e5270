"""Feed-forwards that are computed again in the backward pass: the same results for less memory."""

import copy
import pickle

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from tiny import (
    HOSTS,
    MONA,
    SWIN,
    convnext,
    image,
    pretrained,
    runner_config,
    same,
    swin,
    trained,
    weights,
    with_constructor,
    wrapped,
)

import mmpeft
from mmpeft.costs import flops, saved_bytes
from mmpeft.mm.running.config import inject_at_build

LORA = dict(type='LoRA', rank=2)
INSIDE = dict(type='Adapter', bottleneck=4, dropout=0.1, sites=['ffn_input', 'ffn_branch'])
BESIDE = dict(type='AdaptFormer', bottleneck=4, dropout=0.1)
SSF = dict(type='SSF', sites=['norm2', 'fc1', 'fc2'])
METHODS = [dict(type=name) for name in ('BitFit', 'NormTuning', 'Full', 'CVPT')] + [INSIDE, BESIDE, SSF, LORA]
MATRIX = [(host, MONA) for host in HOSTS] + [('mmseg Swin', method) for method in METHODS]


def pair(host='mmdet Swin', method=MONA, **options):
    """The same backbone with drop path and dropout twice; the second one recomputes."""
    options = dict(drop_path_rate=0.3, drop_rate=0.1) | options
    plain = HOSTS[host](**options)
    backbones = plain, copy.deepcopy(plain)
    for backbone, recompute_ffn in zip(backbones, (False, True), strict=True):
        mmpeft.inject(backbone, method, recompute_ffn=recompute_ffn)
        mmpeft.freeze(backbone)
    return backbones


def step(backbone, x):
    """Outputs, gradients, and the next number drawn."""
    torch.manual_seed(0)
    outputs = backbone(x)
    sum(out.float().square().mean() for out in outputs).backward()
    gradients = {name: p.grad for name, p in backbone.named_parameters() if p.grad is not None}
    return [*outputs], gradients, torch.rand(())


def agree(backbones, x):
    (outputs, gradients, number), (again, gradients_again, number_again) = (step(b, x) for b in backbones)
    assert all(torch.equal(a, b) for a, b in zip(outputs, again, strict=True)) and number == number_again
    return gradients and same(gradients, gradients_again)


@pytest.mark.parametrize('host, method', MATRIX, ids=str)
def test_outputs_and_gradients_are_the_same_bits(host, method):
    assert agree(pair(host, method), image(40, 48))


@pytest.mark.parametrize('host', ['mmdet Swin', 'mmseg ViT'])
def test_it_has_no_effect_where_whole_blocks_are_checkpointed(host):
    backbones, x = pair(host, with_cp=True), image()
    assert agree(backbones, x)
    plain, recomputing = (flops(lambda b=b: step(b, x)) for b in backbones)
    assert plain == recomputing


def test_autocast_to_bfloat16_works():
    with torch.autocast('cpu', torch.bfloat16):
        assert agree(pair(), image())


@pytest.mark.parametrize('method', [MONA, LORA], ids=str)
def test_the_hidden_layer_is_not_kept_and_only_the_first_linear_layer_is_computed_again(method):
    (plain, recomputing), x = pair(method=method, drop_rate=0.0), image(32, 32)
    tokens = [(2 * 64 // 4**stage, 8 * 2**stage) for stage in (0, 1, 1, 2, 3)]
    hidden = sum(4 * n * 4 * c for n, c in tokens)
    first = sum(2 * n * 4 * c * c for n, c in tokens)
    assert 0.9 * hidden < saved_bytes(plain, lambda: plain(x)) - saved_bytes(recomputing, lambda: recomputing(x))
    assert flops(lambda: step(recomputing, x)) - flops(lambda: step(plain, x)) == first


@pytest.mark.parametrize('duplicate', [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_do_it_too(duplicate):
    plain, recomputing = pair()
    x, twin = image(), duplicate(recomputing)
    assert saved_bytes(twin, lambda: twin(x)) < saved_bytes(plain, lambda: plain(x))


def test_merging_leaves_a_stock_backbone():
    backbone = swin()
    mmpeft.inject(backbone, LORA, recompute_ffn=True)
    assert mmpeft.merge(backbone).is_stock
    assert type(backbone.stages[0].blocks[0]) is type(swin().stages[0].blocks[0])
    assert not any('recompute_ffn' in vars(module) for module in backbone.modules())


def test_a_backbone_without_transformer_blocks_is_refused_and_stays_as_it_is():
    backbone = convnext()
    with pytest.raises(ValueError, match='recompute_ffn works in transformer blocks, and ConvNeXt has none; .*with_cp'):
        mmpeft.inject(backbone, dict(type='SSF'), recompute_ffn=True)
    assert type(backbone) is type(convnext())


def test_config_and_name_set_it_and_leave_it_off_by_default():
    init_default_scope('mmdet')
    for config in (wrapped(), dict(SWIN, type='mmpeft.MonaSwinTransformer', bottleneck=4)):
        assert not MODELS.build(config).stages[0].blocks[0].recompute_ffn
        assert MODELS.build(dict(config, recompute_ffn=True)).stages[0].blocks[0].recompute_ffn


def test_with_hook_and_wrapper_training_gives_the_bits_of_training_without(tmp_path):
    base = pretrained(tmp_path, drop_path_rate=0.5)
    plain = trained(with_constructor(runner_config(tmp_path / 'plain', wrapped(base))))
    wrapper = trained(with_constructor(runner_config(tmp_path / 'wrapper', wrapped(base, recompute_ffn=True))))
    hooks = [dict(type='mmpeft.MonaHook', bottleneck=4, recompute_ffn=True)]
    hook = trained(runner_config(tmp_path / 'hook', base, custom_hooks=hooks))
    assert same(weights(plain.model), weights(wrapper.model)) and same(weights(plain.model), weights(hook.model))
    assert hook.model.backbone.stages[0].blocks[0].recompute_ffn
    assert Config.fromfile(next((tmp_path / 'hook').glob('*.py'))).model.backbone.recompute_ffn is True
    early = runner_config(tmp_path / 'early', base, custom_hooks=hooks)
    inject_at_build(early)
    assert early.model.backbone.recompute_ffn is True
