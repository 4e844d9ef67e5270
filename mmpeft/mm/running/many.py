"""Many runs of a plan: each is trained here or by a script, skipped when it is finished and resumed when it broke."""

import json
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from mmengine.config import Config

from mmpeft.files import write_atomically
from mmpeft.mm.checks import UserError
from mmpeft.mm.running.progress import clock

LAUNCHERS = ('local', 'print', 'torchrun', 'slurm')


@dataclass(frozen=True)
class Run:
    """One run: its config, its work dir, and the command that trains it."""

    config: Path
    work_dir: Path
    command: tuple[str, ...]

    @property
    def marker(self) -> Path:
        """A file that says that the run came to its end."""
        return self.work_dir / 'finished'


@dataclass(frozen=True)
class Cluster:
    """What trains runs elsewhere: one of ``LAUNCHERS``, with how many GPUs a run, in which partition of Slurm.

    Raises:
        UserError: Slurm has no partition.
    """

    launcher: str = 'local'
    gpus: int = 1
    partition: str = ''

    def __post_init__(self) -> None:
        if self.launcher == 'slurm' and not self.partition:
            raise UserError('Slurm needs a partition; name it with --partition.')


def check_same(path: Path, plan: dict, what: str, started: bool) -> None:
    """Refuse to mix two plans in one folder; one that has not started left nothing to mix with.

    Args:
        path: The file in the folder that says the plan.
        plan: What must be the same.
        what: What it is a plan of, in a word.
        started: Whether the folder holds what is made by the plan.

    Raises:
        UserError: The folder holds something else, or the plan is another one.
    """
    folder = path.parent
    if not started or not path.is_file():
        found = folder.iterdir() if folder.is_dir() else ()
        if any(file != path and not file.name.startswith('.') for file in found):
            raise UserError(f'{folder} holds files that no {what} made; name another --out.')
        return
    before = json.loads(path.read_text(encoding='utf-8'))
    differing = [name for name in plan if before.get(name) != plan[name]]
    if differing:
        raise UserError(
            f'{folder} holds a {what} with another {" and ".join(differing)}; name another --out, or give the '
            'same arguments to go on with it.'
        )


def write_plan(path: Path, plan: dict) -> None:
    """Say the plan in its file."""
    write_atomically(path, lambda file: file.write(json.dumps(plan).encode()))


def write_run(cfg: Config, folder: Path, name: str, tools: Path) -> Run:
    """Write the config of a run that trains in ``folder/name``, unless it is there; it resumes by itself."""
    cfg.resume = False
    config, work_dir = folder / f'{name}.py', folder / name
    if not config.is_file():
        text = cfg.pretty_text
        write_atomically(config, lambda file: file.write(text.encode()))
    command = (sys.executable, str(tools / 'train.py'), str(config), '--work-dir', str(work_dir), '--resume')
    return Run(config, work_dir, command)


def train_here(run: Run, tell: Callable[[str], None]) -> None:
    """Train a run that is not finished, and write what it prints into its work dir.

    Raises:
        UserError: It failed; the last line that it printed is told.
    """
    if run.marker.exists():
        tell(f'{run.work_dir} is finished already')
        return
    run.work_dir.mkdir(parents=True, exist_ok=True)
    log = run.work_dir / 'console.log'
    tell(f'{run.work_dir}: the log is {log}')
    with log.open('ab') as file:
        before = file.tell()
        status = subprocess.run(run.command, stdout=file, stderr=subprocess.STDOUT).returncode
    if status:
        said = log.read_bytes()[before:].decode(errors='replace').split('\n')
        last = next((line.strip() for line in reversed(said) if line.strip()), f'status {status}, without a word')
        raise UserError(f'{run.work_dir} failed ({last}); see {log}.')
    run.marker.touch()


def train_all(runs: Sequence[Run], jobs: int, tell: Callable[[str], None]) -> None:
    """Train what is not finished, ``jobs`` runs at a time; a run that fails is told and the others go on."""
    waiting = [run for run in runs if not run.marker.exists()]
    start, pool = monotonic(), ThreadPoolExecutor(jobs)
    futures = [pool.submit(train_here, run, lambda line: None) for run in waiting]
    try:
        for done, future in enumerate(as_completed(futures), 1):
            failed = _failure(future)
            gone = monotonic() - start
            left = clock(gone / done * (len(waiting) - done))
            tell(f'  {done} of {len(waiting)} runs, {clock(gone)} gone, about {left} left{failed}')
    finally:
        pool.shutdown(cancel_futures=True)  # whoever ends this wants no more runs to begin


def _failure(future: Future) -> str:
    """What is told of a run that failed, behind how far all of them are."""
    try:
        future.result()
    except UserError as error:
        return f'; {error}'
    return ''


def hand_over(runs: Sequence[Run], cluster: Cluster, script: Path, tools: Path, tell: Callable[[str], None]) -> None:
    """Print the commands of runs, or write the script that trains them elsewhere and say how to start it."""
    if cluster.launcher == 'print':
        tell('\n'.join(f'{shlex.join(run.command)} && touch {shlex.quote(str(run.marker))}' for run in runs))
        return
    text = (_torchrun if cluster.launcher == 'torchrun' else _slurm)(runs, tools, cluster, script.stem)
    write_atomically(script, lambda file: file.write(text.encode()))
    tell(f'Train with: {"bash" if cluster.launcher == "torchrun" else "sbatch"} {script}')


def _torchrun(runs: Sequence[Run], tools: Path, cluster: Cluster, name: str) -> str:
    lines = ['#!/usr/bin/env bash', '# Trains each run on all GPUs, one after the other.', 'set -euo pipefail']
    script = shlex.quote(str(tools / 'dist_train.sh'))
    for run in runs:
        config, work_dir, marker = (shlex.quote(str(path)) for path in (run.config, run.work_dir, run.marker))
        training = f'{script} {config} {cluster.gpus} --work-dir {work_dir} --resume'
        lines.append(f'[ -e {marker} ] || {{ {training}; touch {marker}; }}')
    return '\n'.join(lines) + '\n'


def _slurm(runs: Sequence[Run], tools: Path, cluster: Cluster, name: str) -> str:
    configs = ' '.join(shlex.quote(str(run.config)) for run in runs)
    script, gpus, partition = shlex.quote(str(tools / 'slurm_train.sh')), cluster.gpus, cluster.partition
    return f"""#!/usr/bin/env bash
# An array job, one task a run: sbatch THIS_FILE. Submitted again, finished runs end at once and broken ones go on.
#SBATCH --job-name={name}
#SBATCH --array=0-{len(runs) - 1}
#SBATCH --partition={partition}
#SBATCH --ntasks={gpus}
#SBATCH --gres=gpu:{gpus}
#SBATCH --cpus-per-task=5
set -euo pipefail
configs=({configs})
config=${{configs[$SLURM_ARRAY_TASK_ID]}}
work_dir=${{config%.py}}
[ -e "$work_dir/finished" ] && exit 0
GPUS={gpus} GPUS_PER_NODE={gpus} {script} {shlex.quote(partition)} {name} "$config" "$work_dir" --resume
touch "$work_dir/finished"
"""
