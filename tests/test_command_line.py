"""The command line itself: flags, exit codes, and the scripts for several processes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_data import MAIN, tool

from mmpeft.commands.dispatch import parser_of

SCRIPTS = ['tools/dist_train.sh', 'tools/dist_test.sh', 'tools/slurm_train.sh']


def test_the_command_line_shows_one_line_and_fails():
    result = subprocess.run([sys.executable, 'tools/train.py', 'nowhere.py'], capture_output=True, text=True)
    assert result.returncode == 1 and result.stderr == 'error: No config file nowhere.py.\n'


@pytest.mark.parametrize('name', ['train', 'test'])
def test_help_names_the_flags_of_mm(name, capsys):
    with pytest.raises(SystemExit, match='0'):
        tool(name).main(['--help'])
    own = {'train': ['--amp', '--auto-scale-lr', '--resume'], 'test': ['--out', '--show-dir', '--wait-time', '--tta']}
    shown = capsys.readouterr().out
    assert all(flag in shown for flag in ['--work-dir', '--cfg-options', '--launcher', *own[name]])


def test_local_rank_is_taken_in_both_spellings():
    for spelling in ('--local-rank', '--local_rank'):
        assert parser_of('train').parse_args([MAIN, f'{spelling}=1']).local_rank == 1


@pytest.mark.parametrize('script', SCRIPTS)
def test_scripts_are_valid_bash_and_say_how_to_use_them(script):
    subprocess.run(['bash', '-n', script], check=True)
    result = subprocess.run(['bash', script], capture_output=True, text=True)
    assert result.returncode == 2 and result.stderr.startswith(f'usage: {script} ')


@pytest.mark.parametrize(
    'script, arguments',
    [('dist_train', ['my config.py', '2']), ('dist_test', ['my config.py', 'a b.pth', '2'])],
)
def test_dist_scripts_hand_arguments_on_unbroken(script, arguments, tmp_path):
    shown = _shown(f'tools/{script}.sh', [*arguments, '--cfg-options', 'a="[1, 2]"'], tmp_path, 'python', PORT='123')
    assert shown[:2] == ['-m', 'torch.distributed.run'] and '--nproc-per-node=2' in shown
    assert '--master-port=123' in shown and 'my config.py' in shown and shown[-2:] == ['--cfg-options', 'a="[1, 2]"']


def test_slurm_script_hands_arguments_on_unbroken(tmp_path):
    arguments = ['part', 'job', 'my config.py', 'work dir', '--amp']
    shown = _shown('tools/slurm_train.sh', arguments, tmp_path, 'srun', GPUS='4', SRUN_ARGS='--qos high')
    assert {'--partition=part', '--ntasks=4', '--ntasks-per-node=4', '--qos', 'high'} <= set(shown)
    assert shown[-6:] == ['my config.py', '--work-dir', 'work dir', '--launcher', 'slurm', '--amp']


def _shown(script: str, arguments: list[str], folder: Path, program: str, **environment: str) -> list[str]:
    """The words that a script calls ``program`` with."""
    fake = folder / program
    fake.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    fake.chmod(0o755)
    env = os.environ | {'PATH': f'{folder}:{os.environ["PATH"]}'} | environment
    return subprocess.run(
        ['bash', script, *arguments], env=env, capture_output=True, text=True, check=True
    ).stdout.splitlines()
