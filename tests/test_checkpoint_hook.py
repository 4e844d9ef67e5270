"""What is on the disk when a run dies while it saves."""

import os
from pathlib import Path

import pytest
import torch
from mmengine.hooks import CheckpointHook as StockCheckpointHook
from resumed import Killed, config, final, resumed
from tiny import same, trained

from mmpeft.mm.saving.checkpoint_hook import CheckpointHook, WholeFiles


def saving(**options) -> dict:
    return dict(checkpoint=dict(type='mmpeft.CheckpointHook', interval=1, **options))


def names(folder: Path, pattern: str = '*.pth') -> list[str]:
    return sorted(path.name for path in folder.glob(pattern))


@pytest.fixture
def steps(monkeypatch):
    """The steps as they are done to ``*.pth`` and ``last_checkpoint``; the one whose number is in ``die_at`` kills."""
    done, die_at = [], []

    def spied(what, method):
        def spy(path, *args, **options):
            name = (args[0] if what == 'rename' else path).name
            if name.endswith('.pth') or name == 'last_checkpoint':
                done.append(f'{what} {name}')
                if len(done) in die_at:
                    raise Killed
            return method(path, *args, **options)

        return spy

    for what, name in (('rename', 'replace'), ('delete', 'unlink')):
        monkeypatch.setattr(Path, name, spied(what, getattr(Path, name)))
    return done, die_at


def test_the_new_file_and_last_checkpoint_come_first_and_the_deletion_last(tmp_path, steps):
    trained(config(tmp_path, default_hooks=saving(max_keep_ckpts=1)))
    assert steps[0] == [
        'rename epoch_1.pth',
        'rename last_checkpoint',
        'rename epoch_2.pth',
        'rename last_checkpoint',
        'delete epoch_1.pth',
        'rename epoch_3.pth',
        'rename last_checkpoint',
        'delete epoch_2.pth',
    ]
    assert names(tmp_path) == ['epoch_3.pth']


@pytest.mark.parametrize('at', range(3, 7))
def test_a_kill_between_any_two_steps_of_saving_costs_nothing(tmp_path, steps, at):
    cfg = config(tmp_path / 'broken', default_hooks=saving(max_keep_ckpts=1))
    steps[1].append(at)
    with pytest.raises(Killed):
        trained(cfg)
    steps[1].clear()
    end = final(resumed(cfg))
    assert same(end, final(trained(config(tmp_path / 'unbroken'))))
    assert names(tmp_path / 'broken', '*') == names(tmp_path / 'broken', '[!.]*')
    assert names(tmp_path / 'broken') == ['epoch_3.pth']


def test_a_file_that_is_cut_off_never_gets_the_name_of_a_checkpoint(tmp_path, monkeypatch):
    flush = os.fsync

    def cut(descriptor):
        path = os.readlink(f'/proc/self/fd/{descriptor}')
        if 'epoch_2.pth' in path:
            os.truncate(path, 100)
            os.link(path, tmp_path / '.epoch_2.pth.1')  # what SIGKILL leaves behind
            raise Killed
        flush(descriptor)

    monkeypatch.setattr(os, 'fsync', cut)
    with pytest.raises(Killed):
        trained(config(tmp_path))
    assert names(tmp_path) == ['epoch_1.pth'] and (tmp_path / 'last_checkpoint').read_text().endswith('epoch_1.pth')
    monkeypatch.undo()
    resumed(config(tmp_path))
    assert not names(tmp_path, '.*')


def test_the_best_checkpoint_is_deleted_when_the_better_one_is_there(tmp_path, steps):
    trained(config(tmp_path, default_hooks=saving(save_best='score', rule='greater')))
    done = [step for step in steps[0] if 'best' in step]
    (best,) = names(tmp_path, 'best_*')
    assert done[-2:] == [f'rename {best}', 'delete best_score_epoch_1.pth']


def test_it_keeps_and_names_the_files_that_the_stock_hook_does(tmp_path):
    options = dict(max_keep_ckpts=2, save_best='score', rule='greater', filename_tmpl='at_{}.pth')
    trained(config(tmp_path / 'ours', default_hooks=saving(**options)))
    trained(
        config(tmp_path / 'stock', default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=1, **options)))
    )
    assert names(tmp_path / 'ours') == names(tmp_path / 'stock')
    both = [torch.load(tmp_path / name / 'at_3.pth', weights_only=False) for name in ('ours', 'stock')]
    assert both[0].keys() == both[1].keys() and same(both[0]['state_dict'], both[1]['state_dict'])


def test_checkpoints_go_to_out_dir_and_last_checkpoint_to_the_work_dir(tmp_path):
    trained(config(tmp_path / 'work', default_hooks=saving(out_dir=str(tmp_path / 'out'))))
    last = (tmp_path / 'work/last_checkpoint').read_text()
    assert last == str(tmp_path / 'out/work/epoch_3.pth') and Path(last).is_file()


def test_other_places_than_the_local_disk_keep_the_way_of_mmengine(tmp_path, monkeypatch):
    saved = []
    stock = StockCheckpointHook._save_checkpoint_with_step
    monkeypatch.setattr(
        StockCheckpointHook, '_save_checkpoint_with_step', lambda self, *args: saved.append(stock(self, *args))
    )
    trained(config(tmp_path, default_hooks=saving(file_client_args=dict(backend='disk'))))
    assert len(saved) == 3 and names(tmp_path) == ['epoch_1.pth', 'epoch_2.pth', 'epoch_3.pth']


def test_a_removed_file_stays_until_it_is_deleted_and_a_kept_one_for_good(tmp_path):
    files, paths = WholeFiles(), [tmp_path / name for name in 'ab']
    for path in paths:
        files.put(b'1', path)
        files.remove(path)
    assert all(path.is_file() for path in paths)
    files.delete_removed({str(paths[0])})
    assert [path.is_file() for path in paths] == [True, False]


def test_it_is_a_checkpoint_hook_for_whoever_asks():
    assert issubclass(CheckpointHook, StockCheckpointHook) and CheckpointHook.priority == 'VERY_LOW'
