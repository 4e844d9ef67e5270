"""What a pass costs: floating-point operations, what it keeps for the backward pass, and how much memory it takes."""

import ctypes
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

PROCESS = Path('/proc/self')


def flops(forward: Callable[[], Any]) -> int:
    """The floating-point operations of matrix products, convolutions and attention; a multiply-add is two."""
    with FlopCounterMode(display=False) as counter:
        forward()
    return counter.get_total_flops()


def saved_bytes(module: nn.Module, forward: Callable[[], Any]) -> int:
    """The bytes that autograd keeps during ``forward`` until the backward pass.

    Each storage counts once. Those of the parameters of ``module`` do not count, nor do views of them, such as the
    transposed weight that a linear layer keeps.
    """
    own = {parameter.untyped_storage()._cdata for parameter in module.parameters()}
    kept = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage  # held, so that no other storage takes its address
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        result = forward()
    del result
    return sum(storage.nbytes() for storage in kept.values())


def peak_bytes(run: Callable[[], Any], device: torch.device) -> int | None:
    """How far ``run`` raises the memory in use: that of the GPU's tensors, or that of this process on Linux.

    Memory of the process is resident memory, in which the allocator's own caches blur small differences. None where
    the system does not tell.
    """
    if device.type == 'cuda':
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    if not (PROCESS / 'clear_refs').exists():
        return None
    before = resident_bytes()
    (PROCESS / 'clear_refs').write_text('5')  # sets the peak to what is in use now
    run()
    return _status('VmHWM') - before


def resident_bytes() -> int:
    """The resident memory of this process on Linux, after the allocator gave back what nothing uses."""
    with suppress(AttributeError):  # of glibc
        ctypes.CDLL(None).malloc_trim(0)
    return _status('VmRSS')


def _status(key: str) -> int:
    """A size in bytes that Linux tells of this process."""
    return 1024 * int(re.search(rf'^{key}:\s+(\d+) kB$', (PROCESS / 'status').read_text(), re.M)[1])
