import copy

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from mmengine.runner import Runner
from mmengine.runner.checkpoint import load_checkpoint
from tiny import MONA, SWIN, pretrained, runner_config, same, trained, weights, with_constructor, wrapped

import mmpeft
from mmpeft.mm.running.config import add_companions, inject_at_build

HOOK = dict(type='mmpeft.MonaHook', bottleneck=4)
CONSTRUCTOR = 'mmpeft.AdapterOptimWrapperConstructor'
REPORT = dict(type='mmpeft.AdapterReportHook')
COMPANIONS = [REPORT, dict(type='mmpeft.AdapterCheckpointHook')]
AUTO_SCALE = dict(auto_scale_lr=dict(enable=True, base_batch_size=8))
PLAIN = {}
CASES = {
    'plain': PLAIN,
    'auto_scale_lr': AUTO_SCALE,
    'ema': dict(custom_hooks=[dict(type='EMAHook', momentum=0.1)]),
    'epochs': dict(
        train_cfg=dict(by_epoch=True, max_epochs=1),
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=1)),
    ),
    'constructor': dict(
        optim_wrapper=dict(
            constructor='DefaultOptimWrapperConstructor',
            optimizer=dict(type='AdamW', lr=1e-2, weight_decay=0.05),
        )
    ),
}


def with_hooks(cfg: Config, *hooks: dict) -> Config:
    cfg = copy.deepcopy(cfg)
    cfg.custom_hooks = [*cfg.get('custom_hooks', []), *hooks]
    return cfg


@pytest.fixture(scope='module')
def base(tmp_path_factory):
    return pretrained(tmp_path_factory.mktemp('base'))


@pytest.mark.parametrize('case', CASES)
def test_hook_both_ways_and_the_wrapper_with_its_constructor_train_to_the_same_bits(tmp_path, base, case):
    wrapper = with_hooks(runner_config(tmp_path / 'wrapper', wrapped(base), **CASES[case]), REPORT)
    by_wrapper = trained(with_constructor(wrapper))
    by_stock_runner = trained(with_hooks(runner_config(tmp_path / 'stock', base, **CASES[case]), HOOK))
    early = with_hooks(runner_config(tmp_path / 'early', base, **CASES[case]), HOOK)
    inject_at_build(early)
    at_build = trained(early)
    reference = weights(by_wrapper.model)
    assert same(reference, weights(by_stock_runner.model)) and same(reference, weights(at_build.model))
    start = MODELS.build(dict(type='ToyModel', backbone=wrapped(base))).backbone
    name = 'stages.3.blocks.0.adapters.after_ffn.up.weight'
    assert not torch.equal(start.state_dict()[name], reference[f'backbone.{name}'])


@pytest.mark.parametrize('folder, backbone, hook', [('wrapper', wrapped, REPORT), ('hook', dict, HOOK)])
def test_the_dumped_config_and_the_one_in_the_checkpoint_rebuild_the_trained_model(
    tmp_path, base, folder, backbone, hook
):
    runner = trained(with_hooks(runner_config(tmp_path, backbone(base)), hook))
    dumped = Config.fromfile(next(tmp_path.glob('*.py')))
    checkpoint = torch.load(tmp_path / 'iter_4.pth', weights_only=False)
    stored = Config.fromstring(checkpoint['meta']['cfg'], '.py')
    for cfg in (dumped, stored):
        assert cfg.custom_hooks == ([REPORT] if folder == 'wrapper' else COMPANIONS)
        assert cfg.optim_wrapper.get('constructor') == (None if folder == 'wrapper' else CONSTRUCTOR)
        model = MODELS.build(cfg.model)
        load_checkpoint(model, str(tmp_path / 'iter_4.pth'))
        assert same(weights(model), weights(runner.model))


def test_the_hook_keeps_the_frozen_base_and_moves_the_adapters(tmp_path, base):
    runner = trained(with_hooks(runner_config(tmp_path, base), HOOK))
    stored = torch.load(base['init_cfg']['checkpoint'])['state_dict']
    state = runner.model.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in stored.items())


def test_the_averaged_model_has_adapters_of_its_own(tmp_path, base):
    ema = dict(type='EMAHook', momentum=0.5)
    runner = trained(with_hooks(runner_config(tmp_path, base), ema, HOOK))
    averaged = next(hook for hook in runner.hooks if type(hook).__name__ == 'EMAHook').ema_model.module
    name = 'backbone.stages.3.blocks.0.adapters.after_ffn.up.weight'
    assert not torch.equal(averaged.state_dict()[name], runner.model.state_dict()[name])
    assert type(averaged.backbone) is type(runner.model.backbone)


def test_a_stock_runner_tests_a_trained_checkpoint_with_the_hook(tmp_path, base):
    trained_model = trained(with_hooks(runner_config(tmp_path / 'train', base), HOOK)).model
    cfg = with_hooks(runner_config(tmp_path / 'test', base, load_from=str(tmp_path / 'train/iter_4.pth')), HOOK)
    for key in ('train_dataloader', 'train_cfg', 'optim_wrapper', 'param_scheduler'):
        cfg.pop(key)
    runner = Runner.from_cfg(cfg)
    runner.call_hook('before_run')
    runner.load_or_resume()
    assert same(weights(runner.model), weights(trained_model))


@pytest.mark.parametrize('way', ['hook', 'wrapper'])
def test_load_from_a_whole_stock_model_gives_the_base(tmp_path, way):
    torch.manual_seed(9)
    stock = MODELS.build(dict(type='ToyModel', backbone=SWIN))
    torch.save(dict(state_dict=stock.state_dict(), meta={}), tmp_path / 'stock.pth')
    changes = dict(load_from=str(tmp_path / 'stock.pth'))
    if way == 'hook':
        runner = trained(with_hooks(runner_config(tmp_path, SWIN, **changes), HOOK))
    else:
        runner = trained(runner_config(tmp_path, wrapped(), **changes))
    state = runner.model.backbone.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in stock.backbone.state_dict().items())


def test_training_on_a_random_base_is_refused_under_the_hook(tmp_path):
    with pytest.raises(RuntimeError, match='never given pretrained weights'):
        trained(with_hooks(runner_config(tmp_path, SWIN), HOOK))
    trained(with_hooks(runner_config(tmp_path, SWIN), dict(HOOK, allow_random_base=True)))


def test_the_report_is_logged_once_with_counts_and_percentages(tmp_path, base):
    trained(with_hooks(runner_config(tmp_path, base), HOOK))
    log = next(tmp_path.glob('*/*.log')).read_text()
    counts = mmpeft.count_parameters(MODELS.build(wrapped(base)))
    assert log.count('Adapters in backbone:') == 1 and log.count('Whole model:') == 1
    assert f'{counts.trainable:,}' in log and f'{counts.percent_of_base:.3f}' in log
    assert '2 Mona after_attn, 2 Mona after_ffn' in log


def test_an_optimizer_that_lacks_an_adapter_is_an_error_that_names_it(tmp_path, base):
    cfg = with_hooks(runner_config(tmp_path, wrapped(base)), REPORT)
    runner = Runner.from_cfg(cfg)
    build = runner.build_optim_wrapper

    def without_last(optim_wrapper):
        built = build(optim_wrapper)
        built.optimizer.param_groups[0]['params'].pop()
        return built

    runner.build_optim_wrapper = without_last
    with pytest.raises(RuntimeError, match=r'does not hold 1 trainable parameters: head\.bias'):
        runner.train()


def test_an_adapter_without_a_gradient_is_an_error_that_names_it(tmp_path, base):
    runner = Runner.from_cfg(with_hooks(runner_config(tmp_path, wrapped(base)), REPORT))
    runner.model.backbone.stages[3].blocks[0].at = lambda site, value, x, hw_shape: value
    with pytest.raises(
        RuntimeError, match=r'32 trainable parameters of the backbone got no gradient: backbone\.stages\.3'
    ):
        runner.train()


def test_gradients_are_asked_for_at_the_first_update(tmp_path, base):
    optim_wrapper = dict(optimizer=dict(type='SGD', lr=1e-2), accumulative_counts=2)
    runner = Runner.from_cfg(with_hooks(runner_config(tmp_path, wrapped(base), optim_wrapper=optim_wrapper), REPORT))
    hook = next(hook for hook in runner.hooks if type(hook).__name__ == 'AdapterReportHook')
    open_checks = []
    after_iteration = hook.after_train_iter

    def spy(*args, **kwargs):
        after_iteration(*args, **kwargs)
        open_checks.append(bool(hook._handles))

    hook.after_train_iter = spy
    runner.train()
    assert open_checks == [True, False, False, False]


def rates(lr_mult: float, **constructor: str) -> dict:
    custom_keys = {'backbone': dict(lr_mult=lr_mult)}
    optimizer = dict(optimizer=dict(type='AdamW', lr=1e-2), paramwise_cfg=dict(custom_keys=custom_keys))
    return dict(optim_wrapper=dict(optimizer, **constructor))


def test_one_line_is_enough_for_adapters_to_train_at_their_own_rate_without_a_line_for_each_tensor(tmp_path, base):
    runner = trained(with_hooks(runner_config(tmp_path, base, **rates(0.1)), HOOK))
    groups = runner.optim_wrapper.optimizer.param_groups
    held = {id(p): group['initial_lr'] for group in groups for p in group['params']}
    trains = {name: held[id(p)] for name, p in runner.model.named_parameters() if p.requires_grad}
    assert {rate for name, rate in trains.items() if mmpeft.is_adapter(name)} == {1e-2}
    log = next(tmp_path.glob('*/*.log')).read_text()
    assert 'is skipped since' not in log and 'multiplies the learning rate' not in log


def test_a_backbone_learning_rate_of_zero_is_refused_under_another_constructor(tmp_path, base):
    changes = rates(0.0, constructor='DefaultOptimWrapperConstructor')
    with pytest.raises(RuntimeError, match='sets the learning rate of adapters to 0.*AdapterOptimWrapperConstructor'):
        trained(with_hooks(runner_config(tmp_path, base, **changes), HOOK))


def test_a_small_backbone_learning_rate_is_pointed_out_under_another_constructor(tmp_path, base):
    changes = rates(0.1, constructor='DefaultOptimWrapperConstructor')
    trained(with_hooks(runner_config(tmp_path, base, **changes), HOOK))
    log = next(tmp_path.glob('*/*.log')).read_text()
    assert 'multiplies the learning rate of 160 adapter parameters by 0.1' in log


def test_a_runner_without_a_config_is_refused(tmp_path, base):
    cfg = runner_config(tmp_path, base)
    keys = ('model', 'work_dir', 'train_dataloader', 'train_cfg', 'optim_wrapper', 'default_scope')
    runner = Runner(**{key: cfg[key] for key in keys}, custom_hooks=[HOOK], experiment_name='bare')
    with pytest.raises(RuntimeError, match='MonaHook needs a Runner with a config'):
        runner.train()


def test_two_adapter_hooks_are_refused():
    cfg = Config(dict(model=dict(backbone=SWIN), custom_hooks=[HOOK, dict(type='mmpeft.AdapterHook', method=MONA)]))
    with pytest.raises(ValueError, match=r'takes one adapter hook, got mmpeft\.MonaHook, mmpeft\.AdapterHook'):
        inject_at_build(cfg)


def test_a_hook_on_a_wrapped_backbone_is_refused():
    cfg = Config(dict(model=dict(backbone=wrapped()), custom_hooks=[HOOK]))
    with pytest.raises(ValueError, match=r'is mmpeft\.AdaptedBackbone already'):
        inject_at_build(cfg)


def test_tools_turn_the_hook_into_the_wrapper_and_keep_other_hooks():
    other = dict(type='EMAHook')
    cfg = Config(dict(model=dict(backbone=SWIN), custom_hooks=[other, dict(HOOK, priority='LOW')]))
    inject_at_build(cfg)
    assert cfg.model.backbone == wrapped() and cfg.custom_hooks == [other, *COMPANIONS]
    add_companions(cfg)
    assert cfg.custom_hooks == [other, *COMPANIONS]


@pytest.mark.parametrize('named', [{}, dict(constructor='DefaultOptimWrapperConstructor')])
def test_tools_name_the_constructor_for_adapted_backbones_whose_config_names_none(named):
    optim_wrapper = dict(optimizer=dict(type='SGD', lr=1), **named)
    adapted, plain = (
        Config(dict(model=dict(backbone=backbone), optim_wrapper=optim_wrapper)) for backbone in (wrapped(), SWIN)
    )
    for cfg in (adapted, plain):
        add_companions(cfg)
    assert adapted.optim_wrapper.constructor == named.get('constructor', CONSTRUCTOR)
    assert plain.optim_wrapper == optim_wrapper


def test_tools_add_the_report_and_the_adapter_files_to_adapted_backbones_alone():
    adapted, plain = Config(dict(model=dict(backbone=wrapped()))), Config(dict(model=dict(backbone=SWIN)))
    add_companions(adapted)
    add_companions(plain)
    assert adapted.custom_hooks == COMPANIONS and 'custom_hooks' not in plain
