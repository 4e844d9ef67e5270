"""A run that is interrupted and resumed ends with the bits of one that never was."""

import random
import time

import numpy as np
import pytest
import torch
from resumed import DATA, NoisyMetric, config, final, killed, resumed
from tiny import same, trained

from mmpeft.random_state import random_state, set_random_state

CASES = [(loop, ema) for loop in ('epochs', 'iters') for ema in (False, True)]
# In the middle of an epoch, in a validation, at its end, right after a checkpoint.
MOMENTS = [('before_train_iter', 7, 'LOWEST'), ('before_val_iter', 3, 'HIGHEST'), ('after_val_epoch', 2, 'LOWEST')]


@pytest.fixture(scope='module')
def unbroken(tmp_path_factory):
    """What each case ends with when nothing interrupts it."""
    return {case: final(trained(config(tmp_path_factory.mktemp('unbroken'), *case))) for case in CASES}


@pytest.mark.parametrize('moment', MOMENTS, ids=lambda moment: moment[0])
@pytest.mark.parametrize('case', CASES, ids=str)
def test_a_resumed_run_ends_with_the_bits_of_an_unbroken_one(tmp_path, unbroken, case, moment):
    killed(config(tmp_path, *case), *moment)
    assert same(final(resumed(config(tmp_path, *case))), unbroken[case])


def test_a_run_that_is_killed_twice_ends_with_the_same_bits(tmp_path, unbroken):
    killed(config(tmp_path, 'epochs', True), 'before_train_iter', 6)
    killed(config(tmp_path, 'epochs', True, resume=True), 'after_train_iter', 6)
    assert same(final(resumed(config(tmp_path, 'epochs', True))), unbroken['epochs', True])


@pytest.mark.parametrize('loop', ['epochs', 'iters'])
def test_without_the_hook_a_resumed_run_ends_elsewhere(tmp_path, unbroken, loop):
    killed(config(tmp_path, loop, custom_hooks=[]), 'before_train_iter', 7)
    assert not same(final(resumed(config(tmp_path, loop, custom_hooks=[]))), unbroken[loop, False])


def with_changes(tmp_path, loop, moment=('before_train_iter', 7), **changes):
    """The ends of an unbroken and of an interrupted run with other settings than those of the matrix."""
    reference = final(trained(config(tmp_path / 'unbroken', loop, **changes)))
    killed(config(tmp_path / 'broken', loop, **changes), *moment)
    return reference, final(resumed(config(tmp_path / 'broken', loop, **changes)))


def loader(kind: str, **options) -> dict:
    sampler = dict(type=kind, shuffle=True)
    return dict(batch_size=2, num_workers=0, sampler=sampler, dataset=DATA) | options


@pytest.mark.parametrize('at', [6, 9])
def test_a_sampler_that_ends_is_exact_in_an_iteration_loop(tmp_path, monkeypatch, at):
    monkeypatch.setattr(time, 'sleep', lambda _: None)
    changes = dict(train_dataloader=loader('DefaultSampler'), default_hooks=every(4))
    assert same(*with_changes(tmp_path, 'iters', ('before_train_iter', at), **changes))


def every(interval: int, **options) -> dict:
    return dict(checkpoint=dict(type='mmpeft.CheckpointHook', by_epoch=False, interval=interval, **options))


def test_workers_that_are_started_anew_are_exact_in_an_epoch_loop(tmp_path):
    changes = dict(train_dataloader=loader('DefaultSampler', num_workers=2, persistent_workers=False))
    assert same(*with_changes(tmp_path, 'epochs', **changes))


@pytest.mark.parametrize('loop', ['epochs', 'iters'])
def test_a_run_without_a_seed_keeps_the_order_that_its_sampler_drew(tmp_path, monkeypatch, loop):
    drawn = iter(range(100, 200))
    monkeypatch.setattr('mmengine.runner.utils.sync_random_seed', lambda: next(drawn))
    indices = []
    monkeypatch.setattr(
        'resumed.ShakenDataset.prepare_data', lambda self, i: indices.append(i) or dict(inputs=torch.ones(4) * i)
    )
    changes = dict(val_cfg=None, val_dataloader=None, val_evaluator=None)
    trained(config(tmp_path / 'unbroken', loop, seed=100, **changes))
    unbroken = indices[-6:]
    killed(config(tmp_path / 'broken', loop, seed=None, **changes), 'before_train_iter', 7)
    resumed(config(tmp_path / 'broken', loop, seed=None, **changes))
    assert indices[-6:] == unbroken


@pytest.mark.parametrize('loop', ['epochs', 'iters'])
def test_accumulated_gradients_are_kept(tmp_path, loop):
    optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.1), accumulative_counts=3 if loop == 'epochs' else 4)
    assert same(*with_changes(tmp_path, loop, optim_wrapper=optim_wrapper))


@pytest.mark.parametrize('moment', [('before_val', 1), ('after_val', 1), ('before_train_iter', 7)])
def test_a_schedule_that_follows_the_metric_is_exact(tmp_path, moment):
    plateau = dict(type='ReduceOnPlateauLR', monitor='score', rule='less', patience=0, factor=0.5)
    reference, end = with_changes(tmp_path, 'epochs', moment, param_scheduler=[plateau])
    assert same(reference, end)


@pytest.mark.parametrize('moment', [('before_train_epoch', 4), ('before_val', 4), ('before_val', 5), ('after_val', 5)])
@pytest.mark.parametrize('best', [False, True])
@pytest.mark.parametrize('loop', ['epochs', 'iters'])
def test_early_stopping_stops_a_resumed_run_where_it_stops_an_unbroken_one(tmp_path, loop, best, moment, monkeypatch):
    monkeypatch.setattr(NoisyMetric, 'compute_metrics', lambda self, results: dict(score=1.0))  # never better
    early = dict(type='EarlyStoppingHook', monitor='score', rule='greater', patience=4)
    by_epoch = loop == 'epochs'
    checkpoint = dict(type='mmpeft.CheckpointHook', by_epoch=by_epoch, interval=1 if by_epoch else 4)
    checkpoint |= dict(save_best='score', rule='greater') if best else {}
    hooks = [dict(type='mmpeft.ExactResumeHook'), early]
    changes = dict(custom_hooks=hooks, rounds=9, default_hooks=dict(checkpoint=checkpoint))
    if moment[0] == 'before_train_epoch' and not by_epoch:
        moment = ('before_train_iter', 14)
    assert same(*with_changes(tmp_path, loop, moment, **changes))
    for name in ('unbroken', 'broken'):
        assert (tmp_path / name / 'last_checkpoint').read_text().endswith('epoch_5.pth' if by_epoch else 'iter_20.pth')


def saving_best(rule: str, **options) -> dict:
    hook = dict(type='mmpeft.CheckpointHook', save_best='score', rule=rule, **options)
    return dict(default_hooks=dict(checkpoint=hook))


@pytest.mark.parametrize('moment', [('before_val', 3), ('after_val_epoch', 3)])
@pytest.mark.parametrize('rule, best', [('greater', 'best_score_epoch_2.pth'), ('less', 'best_score_epoch_3.pth')])
def test_a_run_that_is_killed_in_its_last_validation_finds_its_best_checkpoint(tmp_path, moment, rule, best):
    with_changes(tmp_path, 'epochs', moment, **saving_best(rule, interval=1))
    for name in ('unbroken', 'broken'):
        assert [path.name for path in (tmp_path / name).glob('best_*')] == [best]


@pytest.mark.parametrize('loop', ['epochs', 'iters'])
def test_a_checkpoint_that_is_saved_again_in_a_validation_is_exact(tmp_path, loop):
    by_epoch = loop == 'epochs'
    options = saving_best('greater', by_epoch=by_epoch, interval=1 if by_epoch else 4)
    assert same(*with_changes(tmp_path, loop, ('before_train_iter', 6), **options))


def test_validation_leaves_no_trace_in_the_generators(tmp_path, unbroken):
    changes = dict(val_cfg=None, val_dataloader=None, val_evaluator=None)
    assert same(final(trained(config(tmp_path, 'epochs', **changes))), unbroken['epochs', False])


def test_the_generators_go_on_where_they_were_saved():
    def draw():
        return random.gauss(0, 1), np.random.normal(), torch.rand(()).item()

    draw()
    state = random_state()
    first = draw()
    assert draw() != first
    set_random_state(state)
    assert draw() == first


def test_the_state_in_a_checkpoint_loads_without_pickle(tmp_path):
    torch.save(random_state(), tmp_path / 'state.pth')
    state = torch.load(tmp_path / 'state.pth', weights_only=True)
    value = random.random()
    set_random_state(state)
    assert random.random() == value


def test_a_checkpoint_without_the_state_is_resumed_with_a_warning(tmp_path):
    killed(config(tmp_path, custom_hooks=[]), 'before_train_iter', 7)
    runner = resumed(config(tmp_path))
    log = next(path for path in tmp_path.glob('*/*.log') if path.parent.name == runner.timestamp).read_text()
    assert 'written without mmpeft.ExactResumeHook' in log
