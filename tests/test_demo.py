import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from safetensors import safe_open

from mmpeft.demo.pictures import Boxes, Example, draw_curves, draw_examples, judge
from mmpeft.demo.scenes import SIZE
from mmpeft.mm.checks import UserError
from mmpeft.mm.running.demo import Result, comparison, run_demo, summary

MONA = str(Path('configs/demo/mona_swin-micro_digits.py').resolve())
RESULT = Result('configs/demo/x.py', 0.512, 0.76, 100, 3000, 1000, 20_000, 125.4, ('work/a.png', 'work/b.png'))


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """The Mona demo on a few images, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr('mmpeft.demo.digits.COUNTS', {'train': 4, 'val': 3})
    text = f"""
_base_ = '{MONA}'
train_cfg = dict(max_epochs=1, val_interval=1)
train_dataloader = dict(batch_size=2)
val_dataloader = dict(batch_size=3)
"""
    Path('tiny.py').write_text(text)
    return 'tiny.py'


def test_the_demo_makes_data_trains_and_draws(tiny, capfd):
    told = []
    result = run_demo(tiny, tell=told.append)
    assert '4 train images' in told[0] and 'made just now' in told[0] and 'console.log' in told[1]
    assert all(Path(file).stat().st_size for file in result.files)
    assert {Path(file).name for file in result.files} >= {'predictions.png', 'curves.png', 'epoch_1.pth', 'tiny.py'}
    assert result.trainable_backbone == 148_864 and result.images == 3 and 0 <= result.ap <= result.ap50 <= 1
    assert json.loads(Path('work_dirs/demo/tiny/demo.json').read_text())['ap'] == result.ap
    printed = capfd.readouterr().out
    assert 'epoch  1/1' in printed and 'after epoch  1   box AP' in printed and 'mmengine' not in printed


def test_an_earlier_demo_is_replaced(tiny, monkeypatch):
    Path('out').mkdir()
    Path('out', 'demo.json').write_text('{}')
    Path('out', 'old.pth').write_text('')
    told = []

    def stop(*_, **__):
        raise RuntimeError('far enough')

    monkeypatch.setattr('mmpeft.mm.running.demo.train', stop)
    with pytest.raises(RuntimeError, match='far enough'):
        run_demo(tiny, 'out', told.append)
    assert 'out holds an earlier demo, which this one replaces' in told
    assert not Path('out', 'old.pth').exists()


def test_a_folder_that_no_demo_made_is_refused_and_left_alone(tiny):
    Path('out').mkdir()
    Path('out', 'mine.txt').write_text('mine')
    with pytest.raises(UserError, match='out holds files that no demo made; name another --work-dir'):
        run_demo(tiny, 'out')
    assert [path.name for path in Path('out').iterdir()] == ['mine.txt']


def test_a_config_for_other_data_is_refused():
    with pytest.raises(UserError, match='does not train on the digits of the demo; use mmpeft train'):
        run_demo('configs/mona_swin_coco.py')


def test_the_summary_names_everything_once():
    text = summary(RESULT)
    for part in (
        'x\n',
        '51.2',
        '76.0',
        '100 validation images',
        '1,000 of the 20,000',
        '(5.0 %)',
        '2,000',
        '2 min 5 s',
    ):
        assert text.count(part) == 1, part
    assert text.endswith('work/a.png\n               work/b.png')


def test_the_comparison_is_a_table():
    lines = comparison([RESULT, RESULT]).splitlines()
    assert len(lines) == 3 and len({len(line) for line in lines}) == 1
    assert lines[1].split() == ['x', '51.2', '76.0', '1,000', '(5.0', '%)', '125']


def test_the_micro_base_fills_everything_but_the_output_norms():
    cfg = Config.fromfile('configs/demo/full_swin-micro_digits.py')
    file = cfg.model.backbone.init_cfg.checkpoint
    swin = MODELS.build(cfg.model.backbone)
    swin.init_weights()
    with safe_open(file, 'pt') as base:
        assert {'name', 'architecture', 'licence'} <= base.metadata().keys()
        names = {name.removeprefix('backbone.'): name for name in base.keys()}
        assert swin.state_dict().keys() - names.keys() == {
            f'norm{i}.{leaf}' for i in range(4) for leaf in ('weight', 'bias')
        }
        assert all(name.startswith('backbone.') for name in names.values())
        after = swin.state_dict()
        assert all(torch.equal(after[short].half(), base.get_tensor(name).half()) for short, name in names.items())


def test_the_micro_base_is_found_from_the_dumped_config_too(tmp_path, monkeypatch):
    Config.fromfile('configs/demo/mona_swin-micro_digits.py').dump(tmp_path / 'dumped.py')
    monkeypatch.chdir(tmp_path)
    assert Path(Config.fromfile('dumped.py').model.backbone.backbone.init_cfg.checkpoint).is_file()


def test_judging_takes_each_object_once_and_asks_for_class_and_place():
    truth = Boxes(np.array([[0, 0, 10, 10], [50, 50, 70, 70]]), ['1', '2'])
    corners = np.array([[0, 0, 10, 9], [0, 0, 10, 10], [50, 50, 70, 70], [90, 90, 99, 99], [49, 50, 70, 70]])
    found = Boxes(corners, ['1', '1', '3', '2', '2'], np.array([0.6, 0.9, 0.8, 0.7, 0.4]))
    assert judge(truth, found).tolist() == [False, True, False, False, True]


def test_pictures_are_written_for_odd_numbers_and_empty_images(tmp_path):
    image = np.zeros((SIZE, SIZE, 3), np.uint8)
    some = Boxes(np.array([[200.0, 2.0, 220.0, 30.0]]), ['7'], np.array([0.5]))
    none = Boxes(np.zeros((0, 4)), [], np.zeros(0))
    draw_examples(
        [Example(image, some, none), Example(image, none, some), Example(image, none, none)], tmp_path / 'p.png', 'x'
    )
    draw_curves([3.0, 2.0, 1.0], [(2, 0.1, 0.2), (3, 0.2, 0.4)], tmp_path / 'c.png', 'x')
    assert all((tmp_path / name).stat().st_size > 10_000 for name in ('p.png', 'c.png'))


@pytest.mark.parametrize('one, other', pairwise(('frozen', 'mona', 'full')))
def test_the_demo_configs_differ_in_the_backbone_and_the_rate_alone(one, other):
    configs = [Config.fromfile(f'configs/demo/{name}_swin-micro_digits.py').to_dict() for name in (one, other)]
    for config in configs:
        config['model'].pop('backbone')
        config['optim_wrapper'].pop('constructor', None)
        config['optim_wrapper']['optimizer'].pop('lr')
    assert configs[0] == configs[1]
