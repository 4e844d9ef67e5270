from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS
from mmengine.runner import Runner
from tiny import MONA, ToyModel, runner_config, swin, wrapped

import mmpeft
from mmpeft.mm.optim import AdapterOptimWrapperConstructor

OPTIMIZER = dict(type='AdamW', lr=1e-3, weight_decay=0.05)


def settings(paramwise_cfg=None, model=None):
    """Learning rate and decay of each parameter that the optimizer holds."""
    model = model or ToyModel(wrapped())
    constructor = AdapterOptimWrapperConstructor(dict(optimizer=OPTIMIZER), paramwise_cfg)
    optimizer = constructor(model).optimizer
    names = {id(p): name for name, p in model.named_parameters()}
    groups = [
        (names[id(p)], group['lr'], group['weight_decay']) for group in optimizer.param_groups for p in group['params']
    ]
    return {name: (lr, decay) for name, lr, decay in groups}, optimizer


def test_the_optimizer_holds_what_trains_and_nothing_frozen():
    model = ToyModel(wrapped())
    held, _ = settings(model=model)
    assert held.keys() == {name for name, p in model.named_parameters() if p.requires_grad}


def test_the_norm_inside_mona_does_not_decay_and_everything_else_does():
    held, _ = settings()
    adapters = {name: value for name, value in held.items() if mmpeft.is_adapter(name)}
    assert {name.split('.')[-2] for name, (_, decay) in adapters.items() if decay == 0} == {'norm'}
    assert held['backbone.stages.0.blocks.0.adapters.after_attn.gammax'] == (1e-3, 0.05)
    assert held['head.weight'] == (1e-3, 0.05)


def test_a_rule_for_the_backbone_does_not_reach_its_adapters():
    held, _ = settings(dict(custom_keys={'backbone': dict(lr_mult=0.1, decay_mult=0), 'head': dict(lr_mult=10)}))
    assert held['backbone.stages.0.blocks.0.adapters.after_attn.up.weight'] == (1e-3, 0.05)
    assert held['head.weight'] == (1e-2, 0.05)


def test_a_rule_that_names_adapters_wins():
    held, _ = settings(dict(custom_keys={'adapters': dict(lr_mult=3, decay_mult=0)}))
    assert held['backbone.stages.0.blocks.0.adapters.after_attn.up.weight'] == (3e-3, 0)


def test_equal_settings_share_a_group():
    _, optimizer = settings()
    assert len(optimizer.param_groups) <= 3


def test_the_log_has_no_line_per_tensor(tmp_path):
    optim_wrapper = dict(constructor='mmpeft.AdapterOptimWrapperConstructor', optimizer=OPTIMIZER)
    runner = Runner.from_cfg(runner_config(tmp_path, wrapped(allow_random_base=True), optim_wrapper=optim_wrapper))
    runner.train()
    log = next(tmp_path.glob('*/*.log')).read_text()
    assert 'is skipped since' not in log and 'paramwise_options' not in log


def test_a_model_without_adapters_follows_mm_rules():
    model = ToyModel(wrapped())
    model.backbone = swin()
    held, _ = settings(dict(norm_decay_mult=0), model)
    assert held['backbone.norm3.weight'] == (1e-3, 0) and held['backbone.patch_embed.projection.weight'] == (1e-3, 0.05)


def test_a_method_list_gives_each_adapter_its_own_rule():
    methods = [dict(MONA, blocks=r'stages\.0'), dict(MONA, blocks=r'stages\.3')]
    held, _ = settings(model=ToyModel(wrapped(method=methods)))
    assert sum(decay == 0 for _, decay in held.values()) == 8


def test_the_constructor_is_found_by_its_scoped_name():
    assert OPTIM_WRAPPER_CONSTRUCTORS.get('mmpeft.AdapterOptimWrapperConstructor') is AdapterOptimWrapperConstructor
