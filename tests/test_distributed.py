"""Two processes over gloo on the CPU."""

import os
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp
from tiny import pretrained, runner_config, same, trained, wrapped

HOOK = dict(type='mmpeft.MonaHook', bottleneck=4, dropout=0.0)
MONA = dict(type='Mona', bottleneck=4, dropout=0.0)
WAYS = {
    'wrapper': lambda base: dict(backbone=wrapped(base, MONA)),
    'hook': lambda base: dict(backbone=base, custom_hooks=[HOOK]),
}


def config(folder: Path, way: str, batch_size: int, base: dict, **changes):
    options = WAYS[way](base)
    cfg = runner_config(folder, options.pop('backbone'), **options, **changes)
    cfg.train_dataloader.batch_size = batch_size
    cfg.optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.1, momentum=0.9))
    return cfg


def rank_main(rank: int, folder: Path, way: str, base: dict) -> None:
    torch.set_num_threads(1)
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE='2')
    torch.distributed.init_process_group('gloo', f'file://{folder}/store', rank=rank, world_size=2)
    wrapper = dict(type='MMDistributedDataParallel', device_ids=None, broadcast_buffers=False)
    runner = trained(config(folder / 'two', way, 1, base, launcher='pytorch', model_wrapper_cfg=wrapper))
    torch.save(runner.model.module.state_dict(), folder / f'rank{rank}.pth')
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize('way', WAYS)
def test_two_ranks_stay_equal_and_match_one_process_with_the_same_global_batch(tmp_path, way):
    base = pretrained(tmp_path)
    mp.spawn(rank_main, args=(tmp_path, way, base), nprocs=2)
    ranks = [torch.load(tmp_path / f'rank{rank}.pth') for rank in (0, 1)]
    assert same(*ranks)
    one = trained(config(tmp_path / 'one', way, 2, base)).model.state_dict()
    start = trained(
        config(tmp_path / 'start', way, 2, base, train_cfg=dict(by_epoch=False, max_iters=1))
    ).model.state_dict()
    assert ranks[0].keys() == one.keys()
    for name, value in one.items():
        torch.testing.assert_close(ranks[0][name], value, rtol=1e-4, atol=1e-6)
    name = 'backbone.stages.3.blocks.0.adapters.after_ffn.up.weight'
    assert (one[name] - start[name]).abs().max() > 1e-4
