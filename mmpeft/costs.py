"""What a forward pass costs: floating-point operations, and the memory that it keeps for the backward pass."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode


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
