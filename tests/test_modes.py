import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from tiny import (
    BACKBONES,
    CONVNEXTS,
    SWIN,
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
from mmpeft.hosts import adapters_of
from mmpeft.mm.running.config import inject_at_build

QUIET = dict(type='Mona', bottleneck=4, dropout=0.0)


def adapted(host='mmdet Swin', method=QUIET, eval_frozen=True, **options):
    """A backbone with much drop path, and dropout where it has any, in train mode."""
    dropout = {} if host in CONVNEXTS else dict(drop_rate=0.3)
    backbone = BACKBONES[host](drop_path_rate=0.5, **dropout, **options)
    mmpeft.inject(backbone, method)
    mmpeft.freeze(backbone)
    backbone.eval_frozen = eval_frozen
    return backbone.train()


def modes(backbone):
    return {name: module.training for name, module in backbone.named_modules()}


def repeats(backbone):
    """Whether two forwards of one image agree."""
    x = image(40, 48)
    return all(torch.equal(a, b) for a, b in zip(backbone(x), backbone(x), strict=True))


def in_adapters(backbone):
    return {module.training for _, adapter in adapters_of(backbone) for module in adapter.modules()}


@pytest.mark.parametrize('host', BACKBONES)
def test_dropout_and_drop_path_of_a_frozen_base_are_off_and_adapters_in_train_mode(host):
    backbone = adapted(host)
    assert repeats(backbone) and backbone.training
    assert in_adapters(backbone) == {True}
    assert [name for name, training in modes(backbone).items() if training and not mmpeft.is_adapter(name)] == ['']


@pytest.mark.parametrize('host', BACKBONES)
def test_by_default_every_module_trains_as_in_the_stock_backbone(host):
    backbone = adapted(host, eval_frozen=False)
    assert not repeats(backbone) and all(modes(backbone).values())


def test_an_adapters_own_dropout_stays_active():
    assert not repeats(adapted(method=dict(QUIET, dropout=0.5)))


@pytest.mark.parametrize('library', ['mmdet', 'mmseg', 'mmpretrain'])
def test_going_to_eval_mode_and_back_ends_where_it_began(library):
    backbone = adapted(f'{library} Swin')
    before = modes(backbone)
    assert not any(modes(backbone.eval()).values())
    assert modes(backbone.train()) == before
    assert modes(backbone.train()) == before
    backbone.eval_frozen = False
    assert all(modes(backbone.train()).values())


def test_a_block_in_which_the_base_trains_stays_in_train_mode_and_the_others_do_not():
    backbone = adapted(method=[QUIET, dict(type='Partial', blocks=r'stages\.3')])
    in_train_mode = {name for name, training in modes(backbone).items() if training and not mmpeft.is_adapter(name)}
    block = 'stages.3.blocks.0'
    assert in_train_mode == {'', *(f'{block}.{name}'.rstrip('.') for name in modes(swin().get_submodule(block)))}
    assert in_adapters(backbone) == {True}


@pytest.mark.parametrize('method', ['BitFit', 'NormTuning', 'Full'])
def test_where_the_base_trains_in_every_part_nothing_goes_to_eval_mode(method):
    assert all(modes(adapted(method=dict(type=method))).values())


@pytest.mark.parametrize('library', ['mmdet', 'mmseg', 'mmpretrain'])
def test_frozen_stages_and_checkpointing_work_with_it(library):
    plain, checkpointed = (adapted(f'{library} Swin', frozen_stages=1, with_cp=with_cp) for with_cp in (False, True))
    checkpointed.load_state_dict(plain.state_dict())
    x = image()
    for backbone in (plain, checkpointed):
        assert in_adapters(backbone) == {True} and repeats(backbone)
        sum(out.square().mean() for out in backbone(x)).backward()
    gradients = {name: p.grad for name, p in checkpointed.named_parameters() if p.requires_grad}
    assert gradients.keys() == mmpeft.trained_names(plain)
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, plain.get_parameter(name).grad, rtol=1e-4, atol=1e-6)


def test_merging_leaves_a_stock_backbone_that_trains_as_one():
    backbone = adapted(method=dict(type='SSF'))
    assert mmpeft.merge(backbone).is_stock
    assert all(modes(backbone).values()) and 'eval_frozen' not in vars(backbone)


def test_config_and_name_set_it_and_leave_it_off_by_default():
    init_default_scope('mmdet')
    by_name = dict(SWIN, type='mmpeft.MonaSwinTransformer', bottleneck=4)
    for config in (wrapped(), by_name):
        assert not MODELS.build(config).eval_frozen
        assert MODELS.build(dict(config, eval_frozen=True)).eval_frozen


def test_hook_both_ways_and_wrapper_train_to_the_same_bits(tmp_path):
    base = pretrained(tmp_path, drop_path_rate=0.5)
    by_wrapper = trained(with_constructor(runner_config(tmp_path / 'wrapper', wrapped(base, eval_frozen=True))))
    hooks = [dict(type='mmpeft.MonaHook', bottleneck=4, eval_frozen=True)]
    by_hook = trained(runner_config(tmp_path / 'hook', base, custom_hooks=hooks))
    early = runner_config(tmp_path / 'early', base, custom_hooks=hooks)
    inject_at_build(early)
    default = trained(runner_config(tmp_path / 'default', wrapped(base)))
    reference = weights(by_wrapper.model)
    assert same(reference, weights(by_hook.model)) and same(reference, weights(trained(early).model))
    assert not same(reference, weights(default.model))
    assert in_adapters(by_hook.model) == {True} and not by_hook.model.backbone.stages[0].training
    dumped = Config.fromfile(next((tmp_path / 'hook').glob('*.py')))
    assert dumped.model.backbone.eval_frozen is True and 'allow_random_base' not in dumped.model.backbone
