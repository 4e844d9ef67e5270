"""The pins, the packaging and the messages of the set-up script."""

import os
import re
import subprocess
import sys
from importlib.metadata import metadata, version
from pathlib import Path

import pytest
from mmengine.fileio import load

import mmpeft

ROOT = Path(__file__).parents[1]
FILES = ('torch', 'mm', 'mmcv', 'demo', 'hub', 'tensorboard', 'timm', 'test', 'locked')
OPTIONAL = ('wandb', 'docs')  # extras that the set-up leaves out
made_by_make = pytest.mark.skipif(
    not (Path(sys.prefix) / 'by-make').exists(), reason='an environment of your own may hold other versions'
)


def pins(name):
    lines = (ROOT / 'requirements' / f'{name}.txt').read_text().splitlines()
    return [line for line in lines if line and not line.startswith('#')]


def name_of(requirement):
    return re.split('[=<>; ]', requirement)[0].lower().replace('_', '-')


ALL = [pin for name in FILES for pin in pins(name)]


def test_every_pin_is_exact():
    assert [
        pin
        for pin in (*ALL, *(pin for name in OPTIONAL for pin in pins(name)))
        if not re.match(r'^[a-z0-9-]+==[0-9.]+(; .+)?$', pin)
    ] == []


def test_nothing_is_pinned_twice():
    names = [name_of(pin) for pin in ALL]
    assert sorted(names) == sorted(set(names))


def test_every_pin_file_is_installed_or_optional():
    assert {path.stem for path in (ROOT / 'requirements').glob('*.txt')} == {*FILES, *OPTIONAL}


@made_by_make
@pytest.mark.parametrize('pin', [pin for pin in ALL if 'python_version' not in pin])
def test_the_pinned_version_is_installed(pin):
    name, pinned = pin.split('==')
    assert version(name).split('+')[0] == pinned


def test_the_package_has_the_version_of_its_source():
    assert version('mmpeft') == mmpeft.__version__


def test_mmpeft_itself_needs_torch_and_safetensors():
    needed = [line for line in metadata('mmpeft').get_all('Requires-Dist') if 'extra ==' not in line]
    assert sorted(needed) == ['numpy>=1.26', 'safetensors', 'torch>=2.6']


@pytest.mark.parametrize(
    'extra, files',
    [
        ('mm', ('mm', 'mmcv')),
        ('test', ('demo', 'hub', 'tensorboard', 'timm', 'test')),
        *((name, (name,)) for name in ('demo', 'docs', 'hub', 'tensorboard', 'timm', 'wandb')),
    ],
)
def test_an_extra_is_its_pins(extra, files):
    declared = [line for line in metadata('mmpeft').get_all('Requires-Dist') if f'extra == "{extra}"' in line]
    expected = [name_of(pin) for file in files for pin in pins(file)]
    assert sorted(name_of(line) for line in declared) == sorted(expected)


@made_by_make
def test_the_environment_has_the_torchvision_hook_of_this_source():
    import _mmpeft_torchvision

    assert Path(_mmpeft_torchvision.__file__).read_text() == (ROOT / 'mmpeft' / 'torchvision_ops.py').read_text()


def test_the_workflow_runs_targets_that_the_makefile_has():
    workflow = load(ROOT / '.github/workflows/ci.yml')
    targets = workflow['jobs']['make']['strategy']['matrix']['target']
    assert targets and all(re.search(rf'^{target}:', (ROOT / 'Makefile').read_text(), re.M) for target in targets)


@pytest.mark.parametrize('form', sorted((ROOT / '.github/ISSUE_TEMPLATE').glob('*.yml')), ids=lambda path: path.stem)
def test_the_forms_for_reports_parse(form):
    assert form.stem == 'config' or {'name', 'description', 'body'} <= load(form).keys()


def set_up(venv, **environment):
    """The exit code and the last lines of a set-up that is expected to stop early."""
    done = subprocess.run(
        ['sh', str(ROOT / 'requirements' / 'install.sh'), str(venv)],
        env={**os.environ, 'PYTHON': sys.executable, **environment},
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stderr


def test_no_python_is_said(tmp_path):
    code, message = set_up(tmp_path / 'venv', PYTHON='python-of-nobody')
    assert code == 1
    assert 'No Python 3.10, 3.11, 3.12 or 3.13 found as: python-of-nobody.' in message
    assert 'make setup PYTHON=/path/to/python3.12' in message


def stub(path, rules):
    """A python at ``path`` that ends with the given code where its arguments match, and else is this one."""
    cases = ''.join(f'*{pattern}*) exit {code};;\n' for pattern, code in rules.items())
    path.write_text(f'#!/bin/sh\ncase "$*" in\n{cases}esac\nexec {sys.executable} "$@"\n')
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    'fails_on, message',
    [
        ('version_info', 'found as: {}. The OpenMMLab libraries'),
        ('ensurepip', '{} has no venv module.'),
        ('Python.h', '{} has no header files (Python.h) to compile with.'),
    ],
)
def test_a_python_that_does_not_fit_is_said(tmp_path, fails_on, message):
    python = stub(tmp_path / 'python', {fails_on: 1})
    code, said = set_up(tmp_path / 'venv', PYTHON=python)
    assert code == 1
    assert message.format(python) in said
    assert not (tmp_path / 'venv').exists()


def made_up_to(venv, python_rules):
    """An environment whose first three steps are done, with a python that does as it is told."""
    (venv / 'bin').mkdir(parents=True)
    stub(venv / 'bin' / 'python', python_rules)
    for name in ('by-make', 'created'):
        (venv / name).touch()
    for step, files in {
        'torch': ['torch', 'locked'],
        'libraries': ['mm', 'demo', 'hub', 'tensorboard', 'timm', 'test', 'locked'],
    }.items():
        text = ''.join((ROOT / 'requirements' / f'{file}.txt').read_text() for file in files)
        (venv / f'{step}.done').write_text(text)
    return venv


def test_a_gpu_without_a_cuda_compiler_is_said(tmp_path):
    code, said = set_up(made_up_to(tmp_path / 'venv', {'CUDA_HOME': 3}))
    assert code == 1
    assert 'no CUDA compiler (nvcc) for the operators of mmcv' in said
    assert 'export CUDA_VISIBLE_DEVICES=' in said


def test_a_pip_that_fails_is_said_and_its_step_is_not_done(tmp_path):
    venv = made_up_to(tmp_path / 'venv', {'CUDA_HOME': 0, 'mmcv.txt': 1})
    code, said = set_up(venv)
    assert code == 1
    assert 'pip failed: the reason is above.' in said
    assert (venv / 'mmcv.begun').exists() and not (venv / 'mmcv.done').exists()


def test_a_step_that_did_not_end_installs_anew(tmp_path):
    venv = made_up_to(tmp_path / 'venv', {'CUDA_HOME': 0, '--force-reinstall': 1, ' install ': 0})
    (venv / 'mmcv.begun').touch()
    code, said = set_up(venv)
    assert code == 1
    assert 'pip failed' in said


def test_a_missing_compiler_is_said(tmp_path):
    code, message = set_up(tmp_path / 'venv', CXX='compiler-of-nobody')
    assert code == 1
    assert 'No C++ compiler (compiler-of-nobody).' in message
    assert 'apt install build-essential' in message


def test_an_environment_that_make_did_not_make_is_kept(tmp_path):
    (tmp_path / 'venv').mkdir()
    (tmp_path / 'venv' / 'mine').touch()
    code, message = set_up(tmp_path / 'venv')
    assert code == 1
    assert 'make did not make it' in message
    assert (tmp_path / 'venv' / 'mine').exists()
