import os
import pickle
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader

from mmpeft.mm.checks import UserError
from mmpeft.mm.weights.checkpoints import check_resumable, checkpoints_as_data, read_checkpoint

WEIGHTS = dict(state_dict=OrderedDict(weight=torch.ones(2)))


class Hostile:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


class Getter:
    """Reads an attribute when it is unpickled."""

    def __reduce__(self):
        return getattr, (HistoryBuffer, '__init__')


def saved(path, value, **options):
    torch.save(value, path, **options)
    return str(path)


def test_what_mmengine_saves_reads_back(tmp_path):
    history = HistoryBuffer([1.0, 2.0], [1, 1])
    extra = dict(meta=dict(best=np.float64(0.5), classes=('a',), palette=np.arange(3)), message_hub=dict(loss=history))
    read = read_checkpoint(saved(tmp_path / 'a.pth', WEIGHTS | extra))
    assert torch.equal(read['state_dict']['weight'], torch.ones(2)) and read['meta']['best'] == 0.5
    assert read['message_hub']['loss'].mean() == 1.5 and read['meta']['palette'].tolist() == [0, 1, 2]


def test_a_file_in_the_old_format_reads(tmp_path):
    path = saved(tmp_path / 'old.pth', WEIGHTS, _use_new_zipfile_serialization=False)
    assert torch.equal(read_checkpoint(path)['state_dict']['weight'], torch.ones(2))


@pytest.mark.parametrize('zipped', [True, False])
def test_a_hostile_file_is_refused_and_nothing_is_run(tmp_path, zipped):
    trace = tmp_path / 'trace'
    value = WEIGHTS | dict(meta=Hostile(trace))
    path = saved(tmp_path / 'hostile.pth', value, _use_new_zipfile_serialization=zipped)
    with checkpoints_as_data(Config(dict(model={}))):
        with pytest.raises(UserError, match='no code is run from a checkpoint'):
            CheckpointLoader.load_checkpoint(path)
        with pytest.raises(pickle.UnpicklingError):
            torch.load(path, weights_only=False)
    assert not trace.exists()
    torch.load(path, weights_only=False)
    assert trace.exists(), 'the file was not hostile'


def test_getattr_reaches_nothing_but_the_statistics_of_a_history(tmp_path):
    with pytest.raises(UserError, match='It asks for getattr'):
        read_checkpoint(saved(tmp_path / 'getter.pth', WEIGHTS | dict(meta=Getter())))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match='No checkpoint file .*gone.pth'):
        read_checkpoint(tmp_path / 'gone.pth')


def test_a_text_file_is_no_checkpoint(tmp_path):
    path = tmp_path / 'page.pth'
    path.write_text('<!DOCTYPE html><html>Not found</html>')
    with pytest.raises(UserError, match='no checkpoint: its first bytes are .*DOCTYPE'):
        read_checkpoint(path)


@pytest.mark.parametrize('part', [0.01, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_damaged(tmp_path, part):
    path = saved(tmp_path / 'cut.pth', dict(state_dict=dict(weight=torch.ones(3000))))
    os.truncate(path, int(part * os.path.getsize(path)))
    with pytest.raises(UserError, match='cut.pth is damaged or no checkpoint'):
        read_checkpoint(path)


@pytest.mark.parametrize('value, what', [([1, 2], 'a list'), (dict(a=1), 'a dict of a'), ({}, 'a dict of nothing')])
def test_a_file_without_weights_is_no_checkpoint(tmp_path, value, what):
    with pytest.raises(UserError, match=f'it holds {what} and no weights'):
        read_checkpoint(saved(tmp_path / 'other.pth', value))


def test_a_plain_pickle_is_no_checkpoint(tmp_path):
    path = tmp_path / 'plain.pkl'
    path.write_bytes(pickle.dumps(dict(a=1)))
    with pytest.raises(UserError, match='plain.pkl'):
        read_checkpoint(path)


def test_an_archive_that_unpacks_to_more_than_it_is_is_refused_unread(tmp_path, monkeypatch):
    whole = saved(tmp_path / 'whole.pth', dict(state_dict=dict(weight=torch.zeros(100_000))))
    bomb = tmp_path / 'bomb.pth'
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(bomb, 'w', zipfile.ZIP_DEFLATED) as target:
        for entry in source.infolist():
            target.writestr(entry.filename, source.read(entry))
    assert bomb.stat().st_size < 10_000
    monkeypatch.setattr('torch.load', lambda *args, **kwargs: pytest.fail('read'))
    with pytest.raises(UserError, match='it would unpack to 400,'):
        read_checkpoint(bomb)


def test_an_adapter_file_cannot_be_resumed(tmp_path):
    with pytest.raises(UserError, match='holds weights only: .* load_from='):
        check_resumable(tmp_path / 'adapters_last.safetensors')


def test_weights_alone_cannot_be_resumed(tmp_path):
    path = saved(tmp_path / 'weights.pth', WEIGHTS)
    with pytest.raises(UserError, match='holds no meta, message_hub, optimizer: .* load_from='):
        check_resumable(path)


@pytest.mark.parametrize('forced', [None, '0'])
def test_an_environment_that_asks_torch_for_pickles_changes_nothing(tmp_path, monkeypatch, forced):
    monkeypatch.setenv('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', '1')
    if forced:
        monkeypatch.setenv('TORCH_FORCE_WEIGHTS_ONLY_LOAD', forced)
    before, path = dict(os.environ), saved(tmp_path / 'a.pth', WEIGHTS)
    with checkpoints_as_data():
        assert CheckpointLoader.load_checkpoint(path)['state_dict'].keys() == {'weight'}
        with pytest.raises(pickle.UnpicklingError):
            torch.load(saved(tmp_path / 'b.pth', Hostile(tmp_path / 'trace')))
    assert dict(os.environ) == before and read_checkpoint(path)
