"""Steps of several processes."""

import datetime
import os

import pytest
import torch.distributed
import torch.multiprocessing as mp

from mmpeft.mm.checks import UserError
from mmpeft.mm.together import in_all
from mmpeft.mm.weights.checkpoints import download

URL = 'http://127.0.0.1:9/base.pth'


def fail():
    raise KeyError('mine')


def test_a_step_that_fails_here_raises_what_it_raised(monkeypatch):
    told = []
    monkeypatch.setattr('mmpeft.mm.together.all_gather_object', lambda text: told.append(text) or [text, None])
    with pytest.raises(KeyError, match='mine'):
        in_all(fail)
    assert told == ["'mine'"] and in_all(lambda: 3) == 3


def test_a_step_that_fails_elsewhere_raises_here_too(monkeypatch):
    monkeypatch.setattr('mmpeft.mm.together.all_gather_object', lambda text: [text, 'disk full'])
    with pytest.raises(UserError, match='disk full'):
        in_all(lambda: 3)


def rank_main(rank, folder):
    torch.set_num_threads(1)
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE='2')
    limit = datetime.timedelta(seconds=60)
    torch.distributed.init_process_group('gloo', f'file://{folder}/store', rank=rank, world_size=2, timeout=limit)
    torch.hub.set_dir(str(folder / f'hub{rank}'))
    with pytest.raises(UserError, match=f'Cannot download {URL} .*hub0'):
        download(URL)
    (folder / f'hub{rank}/checkpoints').mkdir(parents=True, exist_ok=True)
    if rank == 0:  # the other machine has a disk of its own
        (folder / 'hub0/checkpoints/base.pth').touch()
    with pytest.raises(UserError, match=f'Cannot download {URL} .*hub1'):
        download(URL)
    torch.distributed.all_reduce(torch.ones(3))
    (folder / f'went on {rank}').touch()


@pytest.mark.slow
def test_a_download_that_fails_in_one_process_ends_in_all(tmp_path):
    mp.spawn(rank_main, args=(tmp_path,), nprocs=2)
    assert [(tmp_path / f'went on {rank}').exists() for rank in (0, 1)] == [True, True]
