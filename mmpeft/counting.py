"""What a step asks of the device: operations and looks at values, counted on any machine, and what took the time."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from mmpeft.private import TorchDispatchMode

# What launches nothing.
VIEWS = {
    '_reshape_alias',
    '_unsafe_view',
    'alias',
    'as_strided',
    'chunk',
    'detach',
    'empty',
    'empty_like',
    'expand',
    'flatten',
    'movedim',
    'new_empty',
    'new_empty_strided',
    'permute',
    'reshape',
    'select',
    'slice',
    'split',
    'split_with_sizes',
    'squeeze',
    't',
    'transpose',
    'unbind',
    'unflatten',
    'unsqueeze',
    'view',
}
WAITS = {'_local_scalar_dense', 'equal', 'is_nonzero', 'item'}


class Operations(TorchDispatchMode):
    """The operations of torch that run while it is entered; those of a backward pass count, too."""

    def __init__(self) -> None:
        super().__init__()
        self.names = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        self.names[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))

    @property
    def launched(self) -> int:
        """How many compute something; a GPU is sent about as many kernels."""
        return sum(number for name, number in self.names.items() if name not in VIEWS)

    @property
    def waits(self) -> int:
        """How many look at a value, for which a GPU has to be waited for."""
        return sum(number for name, number in self.names.items() if name in WAITS)


@dataclass(frozen=True)
class Operation:
    """What one kind of operation takes in a step of a model.

    Attributes:
        name: The model.
        operation: The operation of torch or, on a GPU, the kernel.
        calls: How often it runs.
        time: All its calls together, in milliseconds, without the operations that it calls.
        share: That as a share of all operations of the step.
    """

    name: str
    operation: str
    calls: int
    time: float
    share: float


def profiled(step: Callable[[], Any], name: str, device: torch.device) -> list[Operation]:
    """The operations of ``step``, or on a GPU its kernels, copies included, by the time that they take, most first."""
    on_gpu = device.type == 'cuda'
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]) as profiler:
        step()
    return operations_of(profiler.key_averages(), name, on_gpu)


def operations_of(events: Iterable[Any], name: str, on_gpu: bool) -> list[Operation]:
    """The events of a profiler that are the GPU's or the CPU's."""
    kind, total = (DeviceType.CUDA, 'self_device_time_total') if on_gpu else (DeviceType.CPU, 'self_cpu_time_total')
    times = [(event, getattr(event, total)) for event in events if event.device_type == kind]
    whole = sum(time for _, time in times)
    times.sort(key=lambda pair: pair[1], reverse=True)
    return [Operation(name, event.key, event.count, time / 1e3, time / whole) for event, time in times]
