import types

import pytest
from mmengine._strategy import ColossalAIStrategy, DDPStrategy, DeepSpeedStrategy, SingleDeviceStrategy
from mmengine.runner import FlexibleRunner
from tiny import MONA, pretrained, runner_config, same, swin, trained, wrapped

import mmpeft
from mmpeft.checkpoint import read_adapters
from mmpeft.hosts.host import SHARD_MARKS
from mmpeft.mm.hooks import AdapterReportHook
from mmpeft.mm.runners import check_strategy
from mmpeft.mm.saving.adapter_hook import AdapterCheckpointHook

HOOKS = [dict(type='mmpeft.AdapterReportHook'), dict(type='mmpeft.AdapterCheckpointHook')]
EMA = dict(type='EMAHook', momentum=0.3)


def config(folder, name, **changes):
    backbone = wrapped(pretrained(folder))
    changes = dict(custom_hooks=HOOKS, launcher='none', env_cfg=dict(), experiment_name=name) | changes
    return runner_config(folder / name, changes.pop('backbone', backbone), **changes)


def train(cfg):
    runner = FlexibleRunner.from_cfg(cfg)
    runner.train()
    return runner


@pytest.mark.parametrize('hooks', [HOOKS, [*HOOKS, EMA]], ids=['plain', 'ema'])
def test_a_flexible_runner_trains_and_saves_what_a_runner_does(tmp_path, hooks):
    runner = trained(config(tmp_path, 'runner', custom_hooks=hooks))
    flexible = train(config(tmp_path, 'flexible', custom_hooks=hooks))
    assert same(runner.model.state_dict(), flexible.model.state_dict())
    files = [read_adapters(tmp_path / name / 'adapters_last.safetensors') for name in ('runner', 'flexible')]
    assert files[0].info == files[1].info
    assert same(files[0].tensors, files[1].tensors)


def test_a_flexible_runner_reports_what_trains(tmp_path, capsys):
    train(config(tmp_path, 'flexible'))
    assert 'Adapters in backbone:' in capsys.readouterr().out


def test_the_one_line_hook_refuses_a_flexible_runner(tmp_path):
    cfg = config(tmp_path, 'hook', backbone=pretrained(tmp_path), custom_hooks=[dict(type='mmpeft.MonaHook')])
    with pytest.raises(
        RuntimeError, match='works with mmengine.runner.Runner, not FlexibleRunner. Use model.backbone='
    ):
        train(cfg)


def runner_of(strategy):
    """A runner at the start of training under ``strategy``, whose own library need not be installed."""
    return types.SimpleNamespace(strategy=strategy.__new__(strategy), model=swin(), hooks=[], cfg={})


@pytest.mark.parametrize('hook', [AdapterReportHook, AdapterCheckpointHook])
@pytest.mark.parametrize('strategy', [DeepSpeedStrategy, ColossalAIStrategy])
def test_strategies_that_ask_no_hook_before_they_save_are_refused(strategy, hook):
    message = f'{hook.__name__} works with .* and FSDPStrategy, not with {strategy.__name__}, .*Use one of these, or'
    with pytest.raises(RuntimeError, match=message):
        hook().before_train(runner_of(strategy))


@pytest.mark.parametrize('strategy', [SingleDeviceStrategy, DDPStrategy])
def test_strategies_that_leave_tensors_whole_are_taken(strategy):
    check_strategy(runner_of(strategy), AdapterCheckpointHook())


@pytest.mark.parametrize('mark', SHARD_MARKS)
def test_shards_are_never_written_as_an_adapter_file(tmp_path, mark):
    model = swin()
    mmpeft.inject(model, MONA)
    setattr(model.patch_embed.projection.weight, mark, True)
    with pytest.raises(ValueError, match='1 parameters of SwinTransformer are shards, for example patch_embed'):
        mmpeft.save_adapters(model, tmp_path / 'task.safetensors')
    assert not list(tmp_path.iterdir())
