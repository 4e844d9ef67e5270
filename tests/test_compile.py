"""What replaces layers or compiles methods of a model leaves the names in adapter files as they are."""

import pytest
import torch
from mmengine.model import convert_sync_batchnorm, revert_sync_batchnorm
from tiny import MONA, SWIN, ToyModel, pretrained, runner_config, trained, wrapped

from mmpeft.checkpoint import read_adapters, tensors_to_save


@pytest.mark.slow
def test_a_compiled_model_writes_the_adapter_file_of_a_plain_one(tmp_path):
    files = []
    for name, compiled in (('plain', False), ('compiled', dict(backend='eager'))):
        hooks = [dict(type='mmpeft.AdapterReportHook'), dict(type='mmpeft.AdapterCheckpointHook')]
        backbone = wrapped(pretrained(tmp_path), dict(MONA, dropout=0.0))
        trained(runner_config(tmp_path / name, backbone, custom_hooks=hooks, compile=compiled))
        files.append(read_adapters(tmp_path / name / 'adapters_last.safetensors'))
    plain, compiled = files
    assert plain.info == compiled.info
    assert plain.tensors.keys() == compiled.tensors.keys()
    for name, tensor in plain.tensors.items():
        torch.testing.assert_close(compiled.tensors[name], tensor, rtol=1e-3, atol=1e-5)


def test_converting_batch_norms_to_synchronised_ones_and_back_changes_no_name_in_the_file():
    model = ToyModel(wrapped(dict(SWIN, type='mmdet.SwinTransformer')))
    model.neck = torch.nn.Sequential(torch.nn.BatchNorm2d(8), torch.nn.ReLU())
    names = [*tensors_to_save(model, model.state_dict())]
    converted = convert_sync_batchnorm(model, 'torch')
    assert isinstance(converted.neck[0], torch.nn.SyncBatchNorm)
    assert [*tensors_to_save(converted, converted.state_dict())] == names
    reverted = revert_sync_batchnorm(converted)
    assert not isinstance(reverted.neck[0], torch.nn.SyncBatchNorm)
    assert sorted(tensors_to_save(reverted, reverted.state_dict())) == sorted(names)
    assert 'neck.0.running_mean' in names
