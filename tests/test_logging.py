"""Logs for TensorBoard and for Weights & Biases, each by one option of ``tools/train.py``."""

import pytest
from mmengine.config import Config
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny_data import SEGMENTOR, tool, write_data

from mmpeft.mm.checks import UserError
from mmpeft.mm.running.config import log_to

WANDB = """
import pathlib
def note(*words):
    with open(pathlib.Path(__file__).parent / 'calls.txt', 'a') as file:
        print(*words, file=file)
def init(**options): note('init', *options)
def log(values, commit): note('log', *values)
def watch(model): note('watch')
def join(): note('join')
class config:
    update = staticmethod(lambda *args, **options: note('config'))
class run:
    log_code = staticmethod(lambda **options: note('code'))
"""


@pytest.fixture
def config(tmp_path):
    path = tmp_path / 'segmentor.py'
    path.write_text(SEGMENTOR.replace('{root}', str(write_data(tmp_path / 'data'))))
    return str(path)


def train(config: str, work_dir, *flags: str) -> None:
    often = ['default_hooks.logger.type=LoggerHook', 'default_hooks.logger.interval=1']
    tool('train').main([config, '--work-dir', str(work_dir), *flags, '--cfg-options', *often])


def test_tensorboard_gets_the_losses_of_training(config, tmp_path):
    train(config, tmp_path / 'work', '--tensorboard')
    (events,) = (tmp_path / 'work').glob('*/vis_data/events.out.tfevents.*')
    log = EventAccumulator(str(events)).Reload()
    assert [event.step for event in log.Scalars('loss')] == [1, 2]
    assert (events.parent / 'scalars.json').exists()


def test_wandb_gets_config_and_losses_in_its_folder(config, tmp_path, monkeypatch):
    (tmp_path / 'wandb.py').write_text(WANDB)
    monkeypatch.syspath_prepend(tmp_path)
    train(config, tmp_path / 'work', '--wandb')
    calls = (tmp_path / 'calls.txt').read_text().splitlines()
    assert calls[0] == 'init dir' and 'config' in calls and calls[-1] == 'join'
    assert sum(call.startswith('log ') and 'loss' in call.split() for call in calls) == 2


def test_a_visualizer_keeps_its_type_and_backends():
    local = dict(type='LocalVisBackend')
    cfg = Config(dict(visualizer=dict(type='SegLocalVisualizer', vis_backends=[local], alpha=0.5)))
    for _ in range(2):
        log_to(cfg, 'tensorboard')
    expected = [local, dict(type='TensorboardVisBackend')]
    assert cfg.visualizer == dict(type='SegLocalVisualizer', vis_backends=expected, alpha=0.5)


def test_a_config_without_a_visualizer_keeps_the_log_that_mmengine_gives_it():
    cfg = Config()
    log_to(cfg, 'tensorboard')
    assert [backend.type for backend in cfg.visualizer.vis_backends] == ['LocalVisBackend', 'TensorboardVisBackend']


@pytest.mark.parametrize('package', ['tensorboard', 'wandb'])
def test_a_missing_package_is_said_with_the_command_that_installs_it(package, monkeypatch):
    monkeypatch.setattr('mmpeft.mm.running.config.find_spec', lambda name: None)
    with pytest.raises(UserError, match=rf"--{package} needs .*: pip install 'mmpeft\[{package}\]'\."):
        log_to(Config(), package)
