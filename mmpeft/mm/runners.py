"""What a Runner holds: its model without wrappers, its optimizers, and what its strategy does to them."""

from collections.abc import Mapping

import torch
from mmengine.hooks import EMAHook, Hook
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.registry import MODELS, STRATEGIES
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import FullyShardedDataParallel

from mmpeft.checkpoint import adapted_backbone
from mmpeft.fingerprint import base_names

SUPPORTED = 'SingleDeviceStrategy, DDPStrategy and FSDPStrategy'


def bare_model(runner: Runner) -> nn.Module:
    """The runner's model without wrappers for several processes or for test-time augmentation."""
    model = runner.model
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    return model


def optim_wrappers(runner: Runner) -> list[OptimWrapper]:
    """The runner's optimizer wrappers: one, or one for each optimizer."""
    wrapper = runner.optim_wrapper
    return list(wrapper.values()) if isinstance(wrapper, OptimWrapperDict) else [wrapper]


def check_strategy(runner: Runner, hook: Hook) -> None:
    """Refuse a run in which ``hook`` would report or save something wrong, or nothing.

    Raises:
        RuntimeError: The strategy is DeepSpeed's or ColossalAI's, or one of several processes comes with an EMAHook,
            or FSDP without a config.
    """
    name, strategy = type(hook).__name__, getattr(runner, 'strategy', None)
    # FSDPStrategy and DDPStrategy are subclasses.
    if strategy is not None and not isinstance(strategy, STRATEGIES.get('SingleDeviceStrategy')):
        raise RuntimeError(
            f'{name} works with {SUPPORTED}, not with {type(strategy).__name__}, which saves without asking hooks and '
            f'may split the model. Use one of these, or remove {name} from custom_hooks.'
        )
    averages = any(isinstance(other, EMAHook) for other in runner.hooks)
    if averages and isinstance(strategy, STRATEGIES.get('DDPStrategy')):
        raise RuntimeError(
            f'{name} takes no EMAHook under {type(strategy).__name__}, whose checkpoints mmengine cannot average. '
            'Remove EMAHook, or use Runner, which averages under DDP.'
        )
    if is_sharded(runner) and 'model' not in runner.cfg:
        raise RuntimeError(
            f'{name} needs the config of the model under FSDPStrategy. Build the runner by FlexibleRunner.from_cfg.'
        )


def bare_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``state`` without the ``module.`` that DDPStrategy, unlike Runner, leaves before every name."""
    inside = all(name.startswith('module.') for name in state)
    return {name.removeprefix('module.'): tensor for name, tensor in state.items()} if inside else dict(state)


def is_sharded(runner: Runner) -> bool:
    """Whether the parameters of the runner's model are in shards."""
    return isinstance(runner.model, FullyShardedDataParallel)


def whole_model(runner: Runner) -> nn.Module:
    """A model as that of ``runner`` before it was sharded; only its base has values that mean nothing."""
    with torch.random.fork_rng():
        return MODELS.build(runner.cfg.model)


def whole_state(runner: Runner) -> dict[str, Tensor]:
    """The state dict of a sharded model with whole tensors; every process must ask for it, and the first gets it."""
    # From the memory of the host there is nothing to offload, and FSDP would free what it hands out.
    offload = runner.model.compute_device.type != 'cpu'
    return get_model_state_dict(runner.model, options=StateDictOptions(full_state_dict=True, cpu_offload=offload))


def fill_base(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Give ``model`` the frozen base that ``state`` holds."""
    name, backbone = adapted_backbone(model)
    base = {leaf: state[f'{name}.{leaf}'.lstrip('.')] for leaf in base_names(backbone)}
    backbone.load_state_dict(base, strict=False)
