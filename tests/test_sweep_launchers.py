"""The scripts of a sweep, run: by torchrun itself, and by stand-ins for Slurm that start what they are told to."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from ingredients import write_segmentor
from tiny_data import tool

from mmpeft.checkpoint import read_adapters

# mmengine sets a GPU before it joins the processes, unless they are joined already.
JOIN = """
from os import environ, getppid
from pathlib import Path
from torch.distributed import init_process_group
rank = environ.get('RANK', environ.get('SLURM_PROCID'))
if rank:
    store = Path(__file__).with_name('store' + environ.get('SLURM_ARRAY_TASK_ID', str(getppid())))
    size = environ.get('WORLD_SIZE', environ.get('SLURM_NTASKS'))
    init_process_group('gloo', f'file://{store}', rank=int(rank), world_size=int(size))
"""
ON_THE_CPU = """
custom_imports = dict(imports=['joined'], allow_failed_imports=False)
model_wrapper_cfg = dict(type='MMDistributedDataParallel', device_ids=None, broadcast_buffers=False)
"""
SBATCH = """#!/bin/sh
for task in 0 1; do SLURM_ARRAY_TASK_ID=$task bash "$1" || exit 1; done
"""
SRUN = """#!/bin/sh
while [ "${1#--}" != "$1" ]; do
    case $1 in --ntasks=*) SLURM_NTASKS=${1#*=} ;; esac
    shift
done
export SLURM_NTASKS
pids=
for rank in $(seq 0 $((SLURM_NTASKS - 1))); do
    SLURM_PROCID=$rank SLURM_LOCALID=$rank "$@" & pids="$pids $!"
done
for pid in $pids; do wait "$pid" || exit 1; done
"""


@pytest.fixture
def programs(tmp_path):
    """The environment of a cluster: Slurm's programs, and a module that joins processes on the CPU."""
    folder = tmp_path / 'programs'
    folder.mkdir()
    for name, text in dict(sbatch=SBATCH, srun=SRUN).items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    (folder / 'joined.py').write_text(JOIN)
    paths = dict(PATH=f'{folder}:{os.environ["PATH"]}', PYTHONPATH=str(folder), PYTHON=sys.executable)
    return os.environ | paths | dict(OMP_NUM_THREADS='1')


@pytest.mark.slow
@pytest.mark.parametrize('launcher, starter', [('torchrun', 'bash'), ('slurm', 'sbatch')])
def test_what_a_launcher_trains_in_two_processes_feeds_a_soup(launcher, starter, tmp_path, programs, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path / 'programs')
    config, out = write_segmentor(tmp_path, more=ON_THE_CPU), tmp_path / 'sweep'
    options = ['--launcher', launcher, '--gpus', '2', '--partition', 'any']
    tool('sweep').main([str(config), '--runs', '2', '--out', str(out), *options])
    done = subprocess.run([starter, out / 'sweep.sh'], env=programs, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    runs = [str(out / f'run_0{number}') for number in range(2)]
    assert all((Path(run) / 'finished').is_file() for run in runs)
    assert 'GPU number: 2' in next(Path(runs[0]).glob('*/*.log')).read_text()
    tool('soup').main(['greedy', str(config), *runs, '--out', str(out / 'greedy.safetensors'), '--images', '4'])
    assert read_adapters(out / 'greedy.safetensors').info.start
