"""The comparison of methods: its runs, its choice of rates and images, and what it writes; runs are stood in for."""

import json
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from ingredients import write_segmentor
from mmengine.config import Config
from tiny_data import SEGMENTOR, tool, write_data

from mmpeft.mm.reports.runs import read_run
from mmpeft.mm.reports.tables import write_csv
from mmpeft.mm.running.holdout import heldout_training_dataset
from mmpeft.mm.studies.outcomes import Outcome, in_words, read_rows, rows_of, table
from mmpeft.mm.studies.study_plots import draw_curves, draw_fractions, draw_scores
from mmpeft.mm.studies.timing import Cost, measure_costs, seconds_of_a_run
from mmpeft.mm.studies.trials import Trial, config_of, stock_config

METHODS = ['Full', 'SSF', 'LoRA:rank=2']
RATES = ['1e-3', '1e-2']
HELD = {'1e-03': 30.0, '1e-02': 40.0}  # per cent


class Trainer:
    """Stands in for train.py and test.py: writes the logs and the weights that they would have left.

    Attributes:
        trained: The names of the runs that were trained, and `tested` those that were scored.
        held: The score on held-out images, by the method and the rate.
        scores: That on the test data, by the method and the seed.
        breaks: What a run is called that breaks.
    """

    def __init__(self):
        self.trained, self.tested = [], []
        self.held = lambda method, lr: 40.0 if lr == 0.01 else 30.0
        self.scores = lambda method, seed: {'Full': 50.0, 'SSF': 48.0}.get(method, 40.0) + seed
        self.breaks = ''

    def __call__(self, command, stdout, stderr):
        words = [str(word) for word in command]
        config, work_dir = Path(words[2]), Path(words[words.index('--work-dir') + 1])
        cfg = Config.fromfile(config)
        method, seed, name = cfg.model.backbone.method.type, cfg.randomness.seed, config.stem
        if re.fullmatch(self.breaks, name):
            stdout.write(b'ValueError: broken\n')
            return subprocess.CompletedProcess(command, 1)
        if words[1].endswith('test.py'):
            self.tested.append(name)
            _write(work_dir / '1/1.json', dict(mIoU=self.scores(method, seed)))
        else:
            self.trained.append(name)
            lines = [dict(mIoU=self.held(method, cfg.optim_wrapper.optimizer.lr), step=step) for step in (1, 2)]
            _write(work_dir / '1/vis_data/scalars.json', *lines)
            (work_dir / 'adapters_last.safetensors').touch()
        return subprocess.CompletedProcess(command, 0)


def _write(path, *lines):
    path.parent.mkdir(parents=True)
    path.write_text('\n'.join(map(json.dumps, lines)))


@pytest.fixture
def config(tmp_path):
    return write_segmentor(tmp_path)


@pytest.fixture
def trainer(monkeypatch):
    """Nothing is trained, measured or drawn, but what that takes is told."""
    trainer = Trainer()
    monkeypatch.setattr('mmpeft.mm.running.many.subprocess.run', trainer)
    monkeypatch.setattr(
        'mmpeft.mm.studies.study.measure_costs', lambda full, configs: {name: _cost(name) for name in configs}
    )
    monkeypatch.setattr('mmpeft.mm.studies.study.seconds_of_a_run', lambda cfg, step: (60, 30))
    for name in ('draw_scores', 'draw_curves', 'draw_fractions'):
        monkeypatch.setattr(f'mmpeft.mm.studies.study_plots.{name}', lambda *what: what[-1].touch())
    return trainer


def _cost(name):
    return Cost(trainable=5 if name == 'Full' else len(name) / 10, percent=1, step=1, step_of_full=1, kept=1, file=1)


def compare(config, *more, methods=METHODS, seeds=2):
    out = config.parent / 'compare'
    words = [str(config), '--methods', *methods, '--lrs', *RATES, '--seeds', str(seeds), '--out', str(out)]
    tool('compare').main([*words, *more])
    return out


def rows(out):
    return {row.method: row for row in read_rows(out / 'compare.csv')}


def test_the_rate_that_is_best_on_held_out_images_serves_all_seeds(config, trainer):
    trainer.held = lambda method, lr: 30 if method == 'SSF' or lr == 0.001 else 40  # a tie of SSF
    out = compare(config)
    assert {name: row.lr for name, row in rows(out).items()} == {'Full': 0.01, 'SSF': 0.001, 'LoRA:rank=2': 0.01}
    assert len(trainer.trained) == 3 * 2 + 3 and len({*trainer.trained}) == 9
    assert sorted(trainer.tested) == sorted(
        f'{name}_seed{seed}' for name in ('Full_lr0.01', 'SSF_lr0.001', 'LoRA-rank-2_lr0.01') for seed in (0, 1)
    )


def test_the_table_tells_means_deviations_and_differences_to_full(config, trainer, capsys):
    trainer.scores = lambda method, seed: dict(Full=[50, 52], SSF=[49, 53], LoRA=[40, 41])[method][seed]
    out = compare(config)
    ssf, lora = rows(out)['SSF'], rows(out)['LoRA:rank=2']
    assert (ssf.score, ssf.difference) == (51, 0) and ssf.deviation == pytest.approx(8**0.5)
    assert ssf.difference_deviation == pytest.approx(2**0.5) and lora.difference == -10.5
    shown = capsys.readouterr().out
    assert (
        '3 methods with 3 runs, 2 of them to choose the rate, and 2 tests each: 9 runs and 6 tests are left, about '
        in shown
    )
    assert (out / 'compare.md').read_text() in shown
    assert '| SSF | 51.0 ± 2.8 | +0.0 ± 1.4 | 2 | 0.01 | ' in shown
    assert 'On 100% of the training images Full has the best mean mIoU, 51.0 ± 1.4.' in shown
    assert 'overlap, so that they are not ranked): SSF.' in shown and 'parameters of the backbone: SSF.' in shown
    assert {'scores.png', 'curves.png', 'runs.csv'} <= {path.name for path in out.iterdir()}


def test_more_methods_and_seeds_add_to_what_is_there(config, trainer, capsys):
    compare(config, methods=['Full'], seeds=1)
    first = [*trainer.trained]
    out = compare(config, methods=['Full', 'SSF'], seeds=2)
    assert trainer.trained[: len(first)] == first and len(trainer.trained) == len({*trainer.trained}) == 4 + 2
    assert sorted(trainer.tested) == sorted({*trainer.tested}) and rows(out)['Full'].seeds == 2
    again = len(trainer.trained), len(trainer.tested)
    capsys.readouterr()
    compare(config, methods=['Full', 'SSF'], seeds=2)
    assert (len(trainer.trained), len(trainer.tested)) == again
    assert '0 runs and 0 tests are left, about 0:00 minutes' in capsys.readouterr().out


def test_a_broken_run_is_named_and_left_out_with_its_seed_counted(config, trainer, capsys):
    trainer.breaks = 'SSF_lr0.01_seed1|SSF_lr0.001_seed0|LoRA.*'
    out = compare(config)
    shown = capsys.readouterr().out
    assert 'SSF_lr0.01_seed1 failed (ValueError: broken); see ' in shown
    assert 'LoRA:rank=2: every run broke, it is left out' in shown
    assert '| 1 of 2 | 0.01 |' in shown and 'With one run alone nobody knows the noise: SSF.' in shown
    assert rows(out)['LoRA:rank=2'].score is None and rows(out)['SSF'].difference == -2
    trainer.breaks = ''
    assert rows(compare(config))['LoRA:rank=2'].score == 40.5


def test_runs_are_whole_configs_that_differ_in_method_rate_and_seed_alone(config, trainer):
    out = compare(config)
    runs = [Config.fromfile(path) for path in sorted(out.glob('runs/*.py'))]
    assert {cfg.model.backbone.backbone.type for cfg in runs} == {'SwinTransformer'}
    assert {cfg.model.backbone.method.type for cfg in runs} == {'Full', 'SSF', 'LoRA'}
    assert {(cfg.optim_wrapper.optimizer.lr, cfg.randomness.seed) for cfg in runs} == {(0.001, 0), (0.01, 0), (0.01, 1)}
    for cfg in runs:
        cfg.model.backbone.method = cfg.optim_wrapper.optimizer.lr = cfg.randomness = None
    assert len({cfg.pretty_text for cfg in runs}) == 1 and len(runs) == 9


def test_costs_are_those_of_a_step_on_real_images(config):
    stock = stock_config(str(config), None)
    configs = {
        name: config_of(stock, dict(type=name), Trial(name, 1e-3, 0, 1), {}) for name in ('Full', 'SSF', 'Frozen')
    }
    costs = measure_costs(configs['Full'], configs, repeats=1)
    full, ssf, frozen = costs.values()
    assert full.percent == 100 and full.step_of_full == 1 and frozen.trainable == 0 < ssf.trainable < full.trainable
    assert frozen.kept < ssf.kept and frozen.file < ssf.file < full.file
    training, testing = seconds_of_a_run(configs['Full'], step=100.0)
    assert 200 < training < 300 and testing > 0  # two iterations


def test_images_are_held_out_of_all_runs_and_shares_lie_inside_each_other(tmp_path, trainer):
    write_data(tmp_path / 'data', images=20)
    config = tmp_path / 'segmentor.py'
    config.write_text(SEGMENTOR.replace('{root}', f'{tmp_path}/data').replace('Mona', 'SSF'))
    options = ['--cfg-options', 'model.backbone.allow_random_base=True']
    out = tmp_path / 'compare'
    config.write_text(config.read_text().replace("dict(type='SwinTransformer'", _with_base(tmp_path)))
    words = [str(config), '--methods', 'SSF', '--lrs', '1e-3', '--seeds', '1', '--out', str(out)]
    tool('compare').main([*words, '--fractions', '0.2', '0.5', '1', *options])
    lists = {path.stem: {*path.read_text().split()} for path in (out / 'data').iterdir()}
    assert len(lists['heldout']) == 2 and len(lists['train']) == 18 and not lists['heldout'] & lists['train']
    assert lists['part0_2'] < lists['part0_5'] < lists['train'] and len(lists['part0_5']) == 9
    runs = {path.stem: Config.fromfile(path) for path in (out / 'runs').glob('*.py')}
    assert {cfg.heldout.ann_file for cfg in runs.values()} == {str(out / 'data/heldout.txt')}
    assert {Path(cfg.train_dataloader.dataset.dataset.ann_file).stem for cfg in runs.values()} == {
        'train',
        'part0_2',
        'part0_5',
    }
    assert [row.fraction for row in read_rows(out / 'compare.csv')] == [0.2, 0.5, 1]
    assert (out / 'fractions.png').is_file() and '| SSF | 20% | ' in (out / 'compare.md').read_text()


def test_what_the_config_holds_out_is_the_same_beside_a_share(config):
    stock = stock_config(str(config), None)
    stock.heldout = dict(data_prefix=dict(img_path='other'))
    trials = (Trial('SSF', 1e-3, 0, fraction) for fraction in (0.1, 1))
    whole = [heldout_training_dataset(config_of(stock, dict(type='SSF'), trial, {0.1: 'part.txt'})) for trial in trials]
    assert whole[0].get('ann_file', '') == whole[1].get('ann_file', '') != 'part.txt'


def _with_base(root):
    write_segmentor(root / 'other')
    return f"dict(type='SwinTransformer', init_cfg=dict(type='Pretrained', checkpoint='{root}/other/base.pth')"


def test_a_share_of_the_images_trains_as_many_iterations_where_epochs_are_counted(config):
    stock = stock_config(str(config), {'train_cfg.max_epochs': 2})
    cfg = config_of(stock, dict(type='SSF'), Trial('SSF', 1e-3, 0, 0.3), {0.3: 'few.txt'})
    repeated = cfg.train_dataloader.dataset
    assert (repeated.type, repeated.times, repeated.dataset.dataset.ann_file) == ('RepeatDataset', 3, 'few.txt')


def test_an_adapted_config_gives_its_stock_backbone(config):
    stock = stock_config(str(config), None)
    assert stock.model.backbone.type == 'SwinTransformer' and stock.model.backbone.init_cfg.type == 'Pretrained'


def test_elsewhere_each_stage_is_handed_over(config, trainer, capsys):
    out = compare(config, '--launcher', 'torchrun', '--gpus', '2')
    shown = capsys.readouterr().out
    assert f'Train with: bash {out}/choose.sh' in shown and 'give the same command again' in shown
    assert not trainer.trained and (out / 'choose.sh').read_text().count('dist_train.sh') == 6
    for path in out.glob('runs/*.py'):
        trainer([None, 'train.py', path, '--work-dir', path.with_suffix('')], None, None)
        (path.with_suffix('') / 'finished').touch()
    compare(config, '--launcher', 'slurm', '--partition', 'any')
    assert '--array=0-2' in (out / 'train.sh').read_text() and not trainer.tested
    compare(config)
    assert len(trainer.tested) == 6


@pytest.mark.parametrize(
    'more, message',
    [
        (['--seeds', '0'], 'at least one seed'),
        (['--jobs', '0'], 'at least one seed and one job'),
        (['--lrs', '0'], 'A learning rate is above 0'),
        (['--fractions', '2'], 'A fraction is above 0 and at most 1'),
        (['--methods', 'Mina'], "Unknown method 'Mina'"),
        (['--methods', 'LoRA:rank'], 'does not read as NAME:KEY=VALUE'),
        (['--launcher', 'slurm'], 'Slurm needs a partition'),
        (['--cfg-options', 'test_dataloader=None'], 'names no test data'),
        (['--cfg-options', 'optim_wrapper.optimizer.lr=0'], 'sets no optim_wrapper.optimizer.lr'),
        (['--cfg-options', 'test_evaluator.format_only=True'], 'compare on data that have labels'),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing_behind(config, trainer, more, message):
    with pytest.raises(SystemExit, match=f'error: .*{message}'):
        compare(config, *more)
    assert not (config.parent / 'compare').exists() and not trainer.trained


def test_another_comparison_in_the_same_folder_is_refused(config, trainer):
    compare(config, methods=['Full'], seeds=1)
    with pytest.raises(SystemExit, match='holds a comparison with another config'):
        compare(config, '--cfg-options', 'train_cfg.max_iters=3')


def test_nothing_trained_is_an_error_that_names_the_logs(config, trainer):
    trainer.breaks = '.*'
    with pytest.raises(SystemExit, match='Nothing was scored; the logs are in .*console.log'):
        compare(config)


def test_plots_show_every_method_and_survive_lone_and_broken_runs(tmp_path):
    outcomes = [Outcome(name, f, 0.01, seed, 40.0 + seed) for name in METHODS for f in (0.1, 1) for seed in range(2)]
    outcomes += [Outcome('Frozen', f, 0.01, 0, score) for f, score in ((0.1, None), (1, 30.0))]
    costs = {name: _cost(name) for name in METHODS} | {'Frozen': replace(_cost(''), trainable=0)}
    found = rows_of(outcomes, costs, dict.fromkeys(costs, 0.01), 'mIoU')
    draw_scores(found, tmp_path / 'scores.png')
    draw_fractions(found, tmp_path / 'fractions.png')
    draw_curves(dict.fromkeys(outcomes, ((1, 10.0), (2, 20.0))), 'mIoU', tmp_path / 'curves.png')
    assert len([*tmp_path.glob('*.png')]) == 3
    assert '| Frozen | 10% | - | - | 0 of 1 | 0.01 |' in table(found)


def test_rows_are_the_same_after_csv(tmp_path):
    found = rows_of([Outcome('Full', 1, 0.1, 0, None)], {'Full': _cost('Full')}, {'Full': None}, 'mIoU')
    write_csv(found, tmp_path / 'rows.csv')
    assert read_rows(tmp_path / 'rows.csv') == found
    assert in_words(found) == 'On 100% of the training images no run was scored.'


def test_curves_of_a_run_that_was_resumed_are_whole(tmp_path):
    _write(tmp_path / '1/vis_data/scalars.json', dict(mIoU=1, step=1), dict(mIoU=2, step=2))
    _write(tmp_path / '2/vis_data/scalars.json', dict(mIoU=3, step=2), dict(mIoU=4, step=3))
    assert read_run(tmp_path, resumed=True).scores == ((1, 1), (2, 3), (3, 4))
    assert read_run(tmp_path).scores == ((2, 3), (3, 4))


@pytest.mark.slow
def test_a_comparison_trains_resumes_and_scores(config, capsys):
    one_map = ['model.backbone.backbone.out_indices=[3]', 'model.decode_head.in_index=0']  # so that all norms train
    words = ['--lrs', '1e-2', '--jobs', '2', '--cfg-options', *one_map]
    out = compare(config, *words, methods=['Full', 'SSF'], seeds=1)
    assert '2 of 2 runs are trained' in capsys.readouterr().out
    assert all(0 <= row.score <= 100 for row in read_rows(out / 'compare.csv'))
    (out / 'runs/SSF_lr0.01_seed0/finished').unlink()
    before = (out / 'runs.csv').read_text()
    compare(config, *words, methods=['Full', 'SSF'], seeds=1)
    assert (out / 'runs.csv').read_text() == before
