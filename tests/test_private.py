"""What mmpeft uses of torch and mmengine without their promise: each test names what is gone."""

import importlib
import inspect
from types import SimpleNamespace

import pytest
import torch
from mmengine.hooks import CheckpointHook as StockCheckpointHook
from mmengine.model import BaseModule, initialize
from mmengine.optim import OptimWrapper
from mmengine.registry import STRATEGIES
from mmengine.runner import CheckpointLoader, EpochBasedTrainLoop, IterBasedTrainLoop, Runner
from mmengine.runner.activation_checkpointing import turn_on_activation_checkpointing
from tiny import SWIN, runner_config
from torch import nn

from mmpeft.hosts.host import SHARD_MARKS
from mmpeft.hosts.names import CHECKPOINTING, INITIALISERS, LINEAR
from mmpeft.mm.private import accumulates, loaded_from, resumes, validate_by
from mmpeft.mm.saving.checkpoint_hook import CheckpointHook

OPERATORS = [
    'native_layer_norm_backward.default',
    'native_batch_norm_backward.default',
    'gelu_backward.grad_input',
    '_softmax_backward_data.default',
    '_softmax_backward_data.out',
    'convolution_backward.default',
    'native_dropout.default',
    '_scaled_dot_product_flash_attention_for_cpu.default',
]


@pytest.mark.parametrize('name', OPERATORS)
def test_torch_has_the_operator(name):
    packet, _, overload = name.partition('.')
    assert hasattr(torch.ops.aten, packet) and overload in getattr(torch.ops.aten, packet).overloads(), name


@pytest.mark.parametrize(
    'place',
    [
        'torch._subclasses.FakeTensorMode',
        'torch.utils._python_dispatch.TorchDispatchMode',
        'torch.utils._pytree.tree_leaves',
        'torch.utils.flop_counter.sdpa_flop_count',
        'torch.native_layer_norm',
        'torch.native_dropout',
        'torch._softmax_backward_data',
    ],
)
def test_torch_has_the_name(place):
    module, _, name = place.rpartition('.')
    assert hasattr(importlib.import_module(module), name), place


def test_a_storage_is_one_object_however_often_it_is_asked_for():
    tensor = torch.zeros(2)
    assert tensor.untyped_storage() is tensor.view(1, 2).untyped_storage()


def test_a_state_dict_carries_metadata_to_the_modules_that_load_it():
    state = nn.Linear(1, 1).state_dict()
    assert '' in state._metadata


def test_fsdp_marks_its_shards_as_the_fingerprint_looks_for_them():
    from torch.distributed.fsdp import _common_utils

    assert _common_utils.FSDP_FLATTENED in SHARD_MARKS


def test_mmengines_initialisers_and_checkpoints_are_known_by_their_modules():
    applied, layer = [], nn.Linear(2, 2)
    layer.apply = lambda fn: applied.append(fn.__module__)
    initialize(layer, dict(type='Constant', layer='Linear', val=1.0))
    assert applied == [INITIALISERS]
    model = nn.Sequential(nn.Linear(2, 2))
    turn_on_activation_checkpointing(model, '0')
    assert vars(model[0])['forward'].__globals__['__name__'] == CHECKPOINTING


def test_mmengines_modules_are_initialised_again_when_told_so():
    assert BaseModule()._is_init is False


@pytest.mark.parametrize('name', ['_save_checkpoint_with_step', '_save_best_checkpoint'])
def test_mmengines_checkpoint_hook_has_the_step_that_ours_replaces(name):
    ours, stock = (inspect.signature(getattr(cls, name)) for cls in (CheckpointHook, StockCheckpointHook))
    assert list(ours.parameters) == list(stock.parameters)


@pytest.mark.parametrize('loop', [EpochBasedTrainLoop, IterBasedTrainLoop])
def test_mmengines_loops_decide_on_an_interval_of_validations(loop):
    assert hasattr(loop, '_decide_current_val_interval')


@pytest.mark.parametrize('name', ['SingleDeviceStrategy', 'DDPStrategy'])
def test_mmengines_strategies_are_found_by_name(name):
    assert STRATEGIES.get(name).__name__ == name


def test_mmengines_optimizer_wrapper_tells_how_many_gradients_it_adds_up():
    parameter = nn.Parameter(torch.zeros(1))
    wrapper = OptimWrapper(torch.optim.SGD([parameter], lr=1), accumulative_counts=3)
    assert wrapper._accumulative_counts == 3 and accumulates(wrapper)


def test_mmengines_checkpoint_loader_keeps_its_schemes_in_a_dict():
    assert isinstance(CheckpointLoader._schemes, dict) and '' in CheckpointLoader._schemes


def test_a_runner_tells_what_it_loads_and_builds_its_validation_when_that_is_run(tmp_path):
    runner = Runner.from_cfg(runner_config(tmp_path, SWIN, load_from='somewhere.pth', resume=True))
    assert resumes(runner) and loaded_from(runner) == 'somewhere.pth'
    assert {'_val_dataloader', '_val_evaluator', '_val_loop'} <= set(vars(runner))
    validate_by(runner, dict(val_dataloader=1, val_evaluator=2, val_cfg=3))
    built = []
    runner.build_val_loop = lambda cfg: built.append(cfg) or SimpleNamespace()
    assert runner.val_loop is not None and built == [3]


@pytest.mark.parametrize('name', LINEAR)
def test_a_linear_layer_has_its_name(name):
    module, _, cls = name.rpartition('.')
    assert issubclass(getattr(importlib.import_module(module), cls), nn.Linear)
