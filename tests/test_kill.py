"""Processes that are killed with SIGKILL at random moments and resumed, until one comes to its end."""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from resumed import config, saved
from tiny import same, trained

ROUNDS = 20
CHILD = """
import sys
from pathlib import Path

import torch
from mmengine.hooks import Hook
from yapf.yapflib import yapf_api

import resumed
from tiny import trained
from mmpeft.mm.saving.resume import find_resumable

class Begin(Hook):
    def before_train(self, runner):
        print('begin', flush=True)

torch.set_num_threads(1)
yapf_api.FormatCode = lambda text, **_: (text, False)
work_dir, loop, ema, rounds = sys.argv[1:]
last = find_resumable(work_dir)
cfg = resumed.config(Path(work_dir), loop, ema == 'ema', int(rounds), resume=last is not None, load_from=last)
cfg.custom_hooks.append(dict(type=Begin))
trained(cfg)
print('end', flush=True)
"""


def run_for(seconds: float, work_dir: Path, loop: str, ema: bool) -> bool:
    """Whether a process comes to its end before it is killed, ``seconds`` after it began to train."""
    environment = dict(os.environ, OMP_NUM_THREADS='1', PYTHONPATH='tests')
    command = [sys.executable, '-W', 'ignore', '-c', CHILD, str(work_dir), loop, 'ema' if ema else 'plain', f'{ROUNDS}']
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment)
    while process.stdout.readline() != 'begin\n':
        assert process.poll() is None
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        pass
    process.kill()
    return 'end' in process.communicate()[0].splitlines()


@pytest.mark.slow
@pytest.mark.parametrize('ema', [False, True])
@pytest.mark.parametrize('loop', ['epochs', 'iters'])
def test_a_run_that_is_killed_again_and_again_ends_with_the_same_bits(tmp_path, loop, ema):
    draw = random.Random(loop)
    kills = 0
    while not run_for(draw.uniform(0, 0.5) if kills < 4 else 60, tmp_path / 'broken', loop, ema):
        kills += 1
    trained(config(tmp_path / 'unbroken', loop, ema, ROUNDS))
    assert kills and same(saved(tmp_path / 'broken'), saved(tmp_path / 'unbroken'))
