import pytest
import torch
from mmengine.runner.checkpoint import CheckpointLoader
from safetensors.torch import save_file

import mmpeft.mm  # noqa: F401  registers the loader


@pytest.fixture
def path(tmp_path):
    save_file({'backbone.norm.weight': torch.arange(3.0)}, tmp_path / 'base.safetensors')
    return tmp_path / 'base.safetensors'


def test_mmengine_reads_a_safetensors_file_as_a_checkpoint(path):
    checkpoint = CheckpointLoader.load_checkpoint(str(path), map_location='cpu')
    assert checkpoint['state_dict']['backbone.norm.weight'].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    'place, loader',
    [
        ('https://example.org/base.safetensors', 'load_from_source'),
        ('hf://owner/repo/base.safetensors', 'load_from_source'),
        ('https://example.org/base.pth', 'load_from_http'),
        ('s3://bucket/base.safetensors', 'load_from_ceph'),
    ],
)
def test_a_remote_file_goes_to_the_loader_of_its_scheme(place, loader):
    assert CheckpointLoader._get_checkpoint_loader(place).__name__ == loader


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'nowhere\.safetensors does not exist'):
        CheckpointLoader.load_checkpoint(str(tmp_path / 'nowhere.safetensors'))


def test_a_truncated_file_is_refused(path):
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(ValueError, match='is not a whole safetensors file'):
        CheckpointLoader.load_checkpoint(str(path))


@pytest.mark.parametrize(
    'where, device',
    [
        (None, 'cpu'),
        (torch.device('meta'), 'meta'),
        ({'cuda:0': 'cpu'}, 'cpu'),
        ({'cpu': 'meta'}, 'meta'),
        (lambda storage, location: None, 'cpu'),
        (lambda storage, location: storage, 'cpu'),
        (lambda storage, location: torch.UntypedStorage(12, device='meta'), 'meta'),
    ],
)
def test_tensors_go_where_torch_would_put_them(path, where, device):
    state = CheckpointLoader.load_checkpoint(str(path), map_location=where)['state_dict']
    assert state['backbone.norm.weight'].device.type == device
