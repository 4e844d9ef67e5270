"""The wheel, installed without a clone: recipes by name, training, testing, inheritance and the demo."""

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
from tiny_data import main_options, words, write_data

pytestmark = pytest.mark.slow
FOLDERS = ('mmpeft', 'configs', 'tools', 'requirements')
FILES = ('setup.py', 'pyproject.toml', 'README.md', 'LICENSE', 'model-index.yml')
TINY_DEMO = """
_base_ = 'mmpeft::recipes/demo/mona_swin-micro_digits.py'
train_cfg = dict(max_epochs=1, val_interval=1)
train_dataloader = dict(dataset=dict(indices=8))
val_dataloader = dict(dataset=dict(indices=8))
"""


def run(*command, cwd: Path) -> str:
    """What a command prints, away from this source."""
    plain = {name: value for name, value in os.environ.items() if name != 'PYTHONPATH'}
    done = subprocess.run(command, cwd=cwd, env=plain | dict(OMP_NUM_THREADS='1'), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
    """The wheel of a copy of this source, because a build leaves files in it."""
    folder = tmp_path_factory.mktemp('wheel')
    source = folder / 'source'
    for name in FOLDERS:
        shutil.copytree(name, source / name, symlinks=True, ignore=shutil.ignore_patterns('__pycache__'))
    for name in FILES:
        shutil.copy(name, source)
    run(sys.executable, '-m', 'pip', 'wheel', '-q', '--no-deps', '--no-build-isolation', '.', '-w', folder, cwd=source)
    return next(folder.glob('*.whl'))


@pytest.fixture(scope='module')
def mmpeft(wheel, tmp_path_factory):
    """The command of a fresh environment with the wheel, over the libraries of this one."""
    venv = tmp_path_factory.mktemp('fresh') / 'venv'
    run(sys.executable, '-m', 'venv', '--without-pip', venv, cwd=venv.parent)
    (packages,) = venv.glob('lib/python*/site-packages')
    (packages / 'stack.pth').write_text(sysconfig.get_path('purelib'))
    run(sys.executable, '-m', 'pip', '--python', venv, 'install', '-q', '--no-deps', wheel, cwd=venv.parent)
    return venv / 'bin' / 'mmpeft'


def test_the_wheel_brings_recipes_scripts_and_the_base_of_the_demo(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        modes = {info.filename: info.external_attr >> 16 for info in archive.infolist()}
    ours = {str(path) for folder in ('configs', 'tools') for path in Path(folder).rglob('*') if path.is_file()}
    ours = {path for path in ours if '__pycache__' not in path}
    shipped = {path.replace('configs/', 'configs/recipes/', 1) for path in ours}
    assert {f'mmpeft/.mim/{path}' for path in (*shipped, 'model-index.yml', 'configs/metafile.yml')} <= names
    assert modes['mmpeft/.mim/tools/dist_train.sh'] & 0o100


def test_a_recipe_trains_and_tests_by_its_name_without_a_clone(mmpeft, tmp_path):
    options = words(main_options(write_data(tmp_path / 'data')))
    assert f'{mmpeft.parent.parent}/lib' in run(mmpeft, 'info', cwd=tmp_path)
    shown = run(mmpeft, 'train', 'mona_swin_coco.py', '--work-dir', 'work', *options, cwd=tmp_path)
    assert shown.splitlines()[-1].startswith('Trained for 2 iterations; log and checkpoints are in')
    shown = run(mmpeft, 'test', 'work/mona_swin_coco.py', 'work/epoch_1.pth', cwd=tmp_path)
    assert 'coco/bbox_mAP' in shown.splitlines()[-1]


def test_the_demo_runs_without_a_clone_and_its_config_can_be_inherited(mmpeft, tmp_path):
    (tmp_path / 'tiny.py').write_text(TINY_DEMO)
    shown = run(mmpeft, 'demo', '--config', 'tiny.py', cwd=tmp_path)
    assert '148,864 of the 3,227,582 parameters' in shown
    assert (tmp_path / 'work_dirs/demo/tiny/predictions.png').is_file()
