import hashlib
import os
import subprocess
import sys

import pytest
import torch
from ingredients import HELD, write_segmentor
from mmengine.config import Config
from tiny import same
from tiny_data import tool

from mmpeft.checkpoint import read_adapters
from mmpeft.mm.checks import UserError
from mmpeft.mm.running.many import Run, train_here
from mmpeft.mm.soups.heldout import heldout_hash
from mmpeft.mm.soups.start_file import write_start
from mmpeft.mm.weights.checkpoints import read_checkpoint

AUGMENT = """
flip, colours = dict(type='RandomFlip', prob=0.5), dict(type='PhotoMetricDistortion')
train_dataloader['dataset']['dataset']['pipeline'] = [*load[:2], flip, colours, load[2]]
"""


@pytest.fixture
def config(tmp_path):
    return write_segmentor(tmp_path, more=AUGMENT)


def sweep(config, *more, runs=3):
    out = config.parent / 'sweep'
    tool('sweep').main([str(config), '--runs', str(runs), '--out', str(out), '--launcher', 'print', *more])
    return out


def test_runs_differ_in_what_is_sampled_alone_and_share_a_start(config):
    out = sweep(config, '--lr', '1e-5', '1e-3', runs=5)
    runs = [Config.fromfile(out / f'run_0{number}.py') for number in range(5)]
    assert {cfg.load_from for cfg in runs} == {f'{out}/start.safetensors'}
    rates = [cfg.optim_wrapper.optimizer.lr for cfg in runs]
    assert len({*rates}) == 5 and all(1e-5 <= rate <= 1e-3 for rate in rates)
    assert len({cfg.randomness.seed for cfg in runs}) == 5
    pipelines = [cfg.train_dataloader.dataset.dataset.pipeline for cfg in runs]
    assert len({step.prob for steps in pipelines for step in steps if step.type == 'RandomFlip'}) == 5
    assert {len(steps) for steps in pipelines} == {4, 5}  # with and without distorted colours
    for cfg in runs:
        cfg.optim_wrapper.optimizer.pop('lr')
        cfg.randomness = cfg.train_dataloader.dataset.dataset.pipeline = None
    assert len({cfg.pretty_text for cfg in runs}) == 1


def test_a_sweep_from_a_trained_task_starts_with_its_values_and_names_its_base(config):
    task = sweep(config, '--seed', '5', runs=1) / 'start.safetensors'
    out = config.parent / 'second'
    options = ['--runs', '1', '--out', str(out), '--launcher', 'print', '--cfg-options', f'load_from={task}']
    tool('sweep').main([str(config), *options])
    first, second = read_adapters(task), read_adapters(out / 'start.safetensors')
    assert second.info.base == first.info.base
    assert all(torch.equal(tensor, second.tensors[name]) for name, tensor in first.tensors.items())


def test_a_longer_sweep_begins_with_the_runs_of_the_shorter_one(config):
    out = sweep(config, runs=1)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    sweep(config, runs=2)
    assert {path.name: path.read_bytes() for path in out.iterdir() if path.name in before} == before
    assert (out / 'run_01.py').is_file()


@pytest.mark.parametrize('change', [['--seed', '1'], ['--lr', '1', '2'], ['--cfg-options', 'train_cfg.max_iters=3']])
def test_another_sweep_in_the_same_folder_is_refused(config, change):
    sweep(config, runs=1)
    with pytest.raises(SystemExit, match='holds a sweep with another (seed|ranges|config)'):
        sweep(config, *change, runs=1)


def test_a_sweep_without_held_out_images_or_with_an_empty_range_is_refused(config):
    with pytest.raises(SystemExit, match='set heldout.ann_file'):
        sweep(config, '--cfg-options', 'heldout=None')
    with pytest.raises(SystemExit, match='A range of lr goes from a number above 0'):
        sweep(config, '--lr', '1e-3', '1e-5')
    with pytest.raises(SystemExit, match='name it with --partition'):
        sweep(config, '--launcher', 'slurm')


def test_a_run_of_a_sweep_is_an_ingredient(config, capsys):
    out = sweep(config, runs=1)
    command = next(line for line in capsys.readouterr().out.splitlines() if 'train.py' in line).split()
    assert command[-3:] == ['&&', 'touch', f'{out}/run_00/finished']
    tool('train').main(command[2:-3])
    info = read_adapters(out / 'run_00/adapters_last.safetensors').info
    assert info.start == hashlib.sha256((out / 'start.safetensors').read_bytes()).hexdigest()
    assert info.heldout == heldout_hash(HELD) and info.base == 'base.pth'


def test_the_start_is_what_training_with_that_seed_would_start_from(config):
    out = sweep(config, '--seed', '4', runs=1)
    options = ['optim_wrapper.optimizer.lr=0.0', 'randomness.seed=4', 'model.decode_head.norm_cfg.momentum=0.0']
    tool('train').main([str(config), '--work-dir', str(out / 'own'), '--cfg-options', *options])
    own, start = (
        read_adapters(path).tensors for path in (out / 'own/adapters_last.safetensors', out / 'start.safetensors')
    )
    names = [name for name in start if 'num_batches' not in name]
    assert same({name: own[name] for name in names}, {name: start[name] for name in names})


def test_the_start_of_full_fine_tuning_is_a_whole_checkpoint(config):
    cfg = Config.fromfile(config)
    cfg.model.backbone = {**cfg.model.backbone.backbone, 'type': 'mmseg.SwinTransformer'}
    path = write_start(cfg, config.parent / 'full', 0)
    base = torch.load(config.parent / 'base.pth')
    state = read_checkpoint(path)['state_dict']
    assert path.name == 'start.pth' and same({name: state[f'backbone.{name}'] for name in base}, base)


def test_the_script_for_slurm_hands_each_task_its_run(config, tmp_path):
    out = sweep(config, '--launcher', 'slurm', '--partition', 'gpu', '--gpus', '4', runs=2)
    script = out / 'sweep.sh'
    assert '#SBATCH --array=0-1\n' in script.read_text()
    shown = _ran(script, tmp_path, 'srun', SLURM_ARRAY_TASK_ID='1')
    assert shown[-5:] == ['--work-dir', f'{out}/run_01', '--launcher', 'slurm', '--resume']
    assert '--ntasks=4' in shown and (out / 'run_01/finished').is_file()
    assert not _ran(script, tmp_path, 'srun', SLURM_ARRAY_TASK_ID='1')


def test_the_script_for_torchrun_trains_what_is_not_finished(config, tmp_path):
    out = sweep(config, '--launcher', 'torchrun', '--gpus', '2', runs=2)
    (out / 'run_00').mkdir()
    (out / 'run_00/finished').touch()
    shown = _ran(out / 'sweep.sh', tmp_path, 'python')
    assert '--nproc-per-node=2' in shown and shown.count(f'{out}/run_01.py') == 1 and f'{out}/run_00.py' not in shown
    assert (out / 'run_01/finished').is_file()


@pytest.mark.slow
def test_a_sweep_trains_skips_what_is_finished_and_feeds_a_soup(config, capsys):
    arguments = [str(config), '--runs', '2', '--out', str(config.parent / 'sweep')]
    tool('sweep').main(arguments)
    out = config.parent / 'sweep'
    trained = [(out / f'run_0{number}/adapters_last.safetensors').stat().st_mtime_ns for number in range(2)]
    capsys.readouterr()
    tool('sweep').main(arguments)
    shown = capsys.readouterr().out
    assert shown.count('is finished already') == 2
    assert trained == [(out / f'run_0{i}/adapters_last.safetensors').stat().st_mtime_ns for i in range(2)]
    command = shown.split('Then mix with: python ')[1].split()[1:]
    words = [path for word in command for path in ([str(p) for p in out.glob('run_*/')] if '*' in word else [word])]
    tool('soup').main([*words, '--images', '4'])
    assert (out / 'greedy.safetensors').is_file()


@pytest.mark.slow
def test_a_sweep_of_full_fine_tuning_feeds_soups_of_checkpoints(config):
    cfg = Config.fromfile(config)
    cfg.model.backbone = {**cfg.model.backbone.backbone, 'type': 'mmseg.SwinTransformer'}
    del cfg.optim_wrapper.constructor
    cfg.dump(config)
    out = sweep(config, runs=2)
    runs = [str(out / f'run_0{number}') for number in range(2)]
    for run in runs:
        tool('train').main([f'{run}.py', '--work-dir', run])
    for recipe in ('greedy', 'learned'):
        tool('soup').main([recipe, str(config), *runs, '--out', f'{out}/{recipe}.pth', '--images', '4'])
        meta = read_checkpoint(out / f'{recipe}.pth')['meta']['mmpeft']
        assert meta['start'] == hashlib.sha256((out / 'start.pth').read_bytes()).hexdigest()
        assert meta['heldout'] == heldout_hash(HELD)
    tool('test').main([str(config), f'{out}/greedy.pth', '--work-dir', str(out / 'test')])


@pytest.mark.slow
def test_a_run_that_fails_is_told_with_its_log(config):
    out = sweep(config, runs=1)
    (out / 'run_00.py').write_text('model = dict()')
    with pytest.raises(SystemExit, match='run_00 failed .*error: .*see .*console.log'):
        sweep(config, '--launcher', 'local', runs=1)
    assert not (out / 'run_00/finished').exists()


def test_a_run_that_dies_without_a_word_is_told_by_its_status(tmp_path):
    command = (sys.executable, '-c', 'import os; os.kill(os.getpid(), 9)')
    run = Run(tmp_path / 'run_00.py', tmp_path / 'run_00', command)
    run.work_dir.mkdir()
    (run.work_dir / 'console.log').write_text('of an earlier try')
    with pytest.raises(UserError, match=r'run_00 failed \(status -9, without a word\); see .*console\.log'):
        train_here(run, lambda line: None)


def test_a_sweep_that_was_killed_while_it_wrote_its_start_goes_on(config, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr('mmpeft.mm.soups.sweeping.write_start', _killed)
        sweep(config, runs=1)
    (config.parent / 'sweep/.start.safetensors.123').touch()
    assert (sweep(config, '--lr', '1', '2', runs=1) / 'start.safetensors').is_file()
    with pytest.raises(SystemExit, match='holds a sweep with another ranges'):
        sweep(config, runs=1)


def _killed(*args):
    raise KeyboardInterrupt


def test_a_folder_with_files_of_others_is_refused(config):
    (config.parent / 'sweep').mkdir()
    (config.parent / 'sweep/start.pth').touch()
    with pytest.raises(SystemExit, match='holds files that no sweep made'):
        sweep(config, runs=1)


def _ran(script, folder, program, **environment):
    """The words that a script calls ``program`` with."""
    fake, told = folder / program, folder / 'told'
    fake.write_text(
        f'#!/bin/sh\nprintf "%s\\n" "$@" > {told}\nmkdir -p {script.parent}/run_00 {script.parent}/run_01\n'
    )
    fake.chmod(0o755)
    told.unlink(missing_ok=True)
    environment = os.environ | {'PATH': f'{folder}:{os.environ["PATH"]}'} | environment
    subprocess.run(['bash', script], env=environment, check=True)
    return told.read_text().splitlines() if told.exists() else []
