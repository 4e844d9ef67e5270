"""What a pass costs: floating-point operations, what it keeps for the backward pass, and how much memory it takes."""

import ctypes
import re
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from mmpeft.private import CPU_ATTENTION, FakeTensorMode, TorchDispatchMode, sdpa_flop_count, tree_leaves

PROCESS = Path('/proc/self')


@contextmanager
def without_content(module: nn.Module) -> Iterator[None]:
    """Compute with shapes alone while it lasts; the tensors of ``module`` lose their values for good."""
    with FakeTensorMode() as mode:
        for child in module.modules():
            own = dict(recurse=False, remove_duplicate=False)
            for name, tensor in (*child.named_parameters(**own), *child.named_buffers(**own)):
                setattr(child, name, mode.from_tensor(tensor))
        yield


def flops(forward: Callable[[], Any]) -> int:
    """The floating-point operations of matrix products, convolutions and attention; a multiply-add is two."""
    # The counter leaves out the attention that CPUs have.
    with FlopCounterMode(display=False, custom_mapping={CPU_ATTENTION: _attention}) as counter:
        forward()
    return counter.get_total_flops()


def _attention(q: torch.Size, k: torch.Size, v: torch.Size, *args: Any, **kwargs: Any) -> int:
    return sdpa_flop_count(q, k, v)


def saved_bytes(module: nn.Module, forward: Callable[[], Any]) -> int:
    """The bytes that autograd keeps during ``forward`` until the backward pass.

    Each storage counts once. Those of the parameters of ``module`` do not count, nor do views of them, such as the
    transposed weight that a linear layer keeps.
    """
    own = {parameter.untyped_storage() for parameter in module.parameters()}
    kept = set()

    def pack(tensor: Tensor) -> Tensor:
        kept.add(tensor.untyped_storage())
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        result = forward()
    del result
    return sum(storage.nbytes() for storage in kept - own)


def peak_of_tensors(run: Callable[[], Any]) -> int:
    """The most bytes that tensors made by ``run`` have at one time, backward passes included; each storage counts once.

    It is exact, and holds for tensors without content, too. What an operation uses inside is not seen.
    """
    with _Tensors() as tensors:
        run()
    return tensors.peak


class _Tensors(TorchDispatchMode):
    """The bytes of the tensors that come out of operations and are alive."""

    def __init__(self) -> None:
        super().__init__()
        self.given, self.alive, self.now, self.peak = set(), weakref.WeakSet(), 0, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        self.given.update(storage for storage in _storages((args, kwargs)) if storage not in self.alive)
        out = func(*args, **(kwargs or {}))
        for storage in _storages(out):
            self._add(storage)
        return out

    def _add(self, storage: torch.UntypedStorage) -> None:
        if storage in self.alive or storage in self.given:
            return
        size = storage.nbytes()
        self.alive.add(storage)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._drop, size)

    def _drop(self, size: int) -> None:
        self.now -= size


def _storages(tree: Any) -> Iterator[torch.UntypedStorage]:
    return (leaf.untyped_storage() for leaf in tree_leaves(tree) if isinstance(leaf, Tensor))


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
