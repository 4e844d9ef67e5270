"""Two processes over gloo that save: what each of them holds alone, and what the first cannot write."""

import os
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, MODELS
from resumed import ShakenDataset, config, killed, resumed
from tiny import trained
from torch import nn

from mmpeft.mm.saving.resume_hook import _gradients_for

ROUNDS = dict(rounds=2, val_cfg=None, val_dataloader=None, val_evaluator=None)
CHECKPOINT = dict(type='mmpeft.CheckpointHook', by_epoch=False, interval=3)


@DATASETS.register_module()
class NumberDataset(ShakenDataset):
    """Eight numbers, none of them random."""

    def prepare_data(self, index: int) -> dict:
        return dict(inputs=torch.tensor([float(index)]))


@MODELS.register_module()
class ProductModel(BaseModel):
    """A weight whose gradient is the mean of the inputs."""

    def __init__(self, data_preprocessor=None) -> None:
        super().__init__(data_preprocessor)
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, inputs, mode: str = 'tensor'):
        out = self.weight * torch.stack(list(inputs))
        return dict(loss=out.mean()) if mode == 'loss' else list(out)


def accumulating(work_dir: Path, **changes):
    """Four iterations of two processes, two an update, and a checkpoint after the third of them."""
    data = dict(batch_size=1, num_workers=0, dataset=dict(type='NumberDataset', serialize_data=False))
    cfg = config(work_dir, 'iters', **ROUNDS)
    cfg.merge_from_dict(
        dict(
            launcher='pytorch',
            experiment_name=str(work_dir),
            model=dict(type='ProductModel'),
            model_wrapper_cfg=dict(type='MMDistributedDataParallel', device_ids=None),
            train_cfg=dict(by_epoch=False, max_iters=4, val_interval=100),
            default_hooks=dict(checkpoint=CHECKPOINT),
            **changes,
        )
    )
    cfg.train_dataloader = dict(data, sampler=dict(type='DefaultSampler', shuffle=False))
    cfg.optim_wrapper = dict(optimizer=dict(type='SGD', lr=1.0), accumulative_counts=2)
    cfg.param_scheduler = []
    return cfg


def attempt(folder: Path, name: str, function) -> None:
    """Leave what a call raises in a file."""
    try:
        function()
        text = 'nothing'
    except Exception as error:
        text = f'{type(error).__name__}: {error}'
    (folder / f'{name}.txt').write_text(text)


def train_without_room(rank: int, cfg) -> None:
    """The first process cannot write its checkpoint."""
    if rank == 0:
        (Path(cfg.work_dir) / 'iter_3.pth').mkdir(parents=True)
    trained(cfg)


def rank_main(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE='2')
    store = f'file://{folder}/store'
    torch.distributed.init_process_group('gloo', store, rank=rank, world_size=2, timeout=timedelta(seconds=60))
    own = folder / f'rank{rank}'
    own.mkdir()
    killed(accumulating(folder / 'broken'), 'before_train_iter', 4)
    runner = resumed(accumulating(folder / 'broken'))
    (own / 'weight.txt').write_text(str(runner.model.module.weight.item()))
    attempt(own, 'disk', lambda: train_without_room(rank, accumulating(folder / 'full')))
    stock = accumulating(folder / 'stock')
    stock.default_hooks.checkpoint = dict(type='CheckpointHook', by_epoch=False, interval=3)
    attempt(own, 'stock', lambda: trained(stock))
    torch.distributed.destroy_process_group()


@pytest.fixture(scope='module')
def ranks(tmp_path_factory):
    """A folder for each of two processes, with what they said."""
    folder = tmp_path_factory.mktemp('ranks')
    mp.spawn(rank_main, args=(folder,), nprocs=2)
    return [folder / f'rank{rank}' for rank in range(2)]


def said(ranks, name: str) -> list[str]:
    return [(folder / f'{name}.txt').read_text() for folder in ranks]


@pytest.mark.slow
def test_each_process_goes_on_with_the_gradients_that_it_had_accumulated(ranks):
    """The first update takes 0 to 3, the second 4 to 7: of the third iteration, one process saw 4 and the other 5."""
    assert said(ranks, 'weight') == [str(-(0 + 1 + 2 + 3) / 4 - (4 + 5 + 6 + 7) / 4)] * 2


@pytest.mark.slow
def test_a_checkpoint_that_cannot_be_written_ends_all_processes(ranks):
    first, second = said(ranks, 'disk')
    assert first.startswith('IsADirectoryError') and second.startswith('UserError: [Errno 21] Is a directory')


@pytest.mark.slow
def test_accumulating_in_several_processes_needs_a_hook_that_saves_what_each_has(ranks):
    for text in said(ranks, 'stock'):
        assert text.startswith('UserError: 2 processes accumulate gradients of their own')
        assert "default_hooks.checkpoint.type='mmpeft.CheckpointHook'" in text


def test_other_processes_than_before_go_on_with_the_mean_of_what_those_had():
    saved = [dict(a=torch.tensor(2.0)), dict(a=torch.tensor(4.0), b=torch.tensor(1.0))]
    assert _gradients_for(0, saved) == dict(a=3.0, b=0.5)
    assert _gradients_for(0, dict(a=torch.tensor(2.0))) == dict(a=2.0)
