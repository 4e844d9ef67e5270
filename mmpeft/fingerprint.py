"""The fingerprint of a base: digests of the pretrained tensors that stay frozen."""

import hashlib
import re
from collections.abc import Mapping

import torch
from torch import Tensor

from mmpeft.freeze import is_adapter, trained_names
from mmpeft.hosts import Backbone

DIGEST_LENGTH = 16
# What FSDP, FSDP2 and tensor parallelism (DTensor), and DeepSpeed's ZeRO-3 set on parameters that they shard.
SHARD_MARKS = ('_fsdp_flattened', 'device_mesh', 'ds_id')


def base_names(backbone: Backbone) -> set[str]:
    """The names of the parameters that a pretrained file gives and training leaves alone.

    Not among them are what the methods train, the output norms, and the tables of positions, which a task may have
    resized.
    """
    names = {name for name, _ in backbone.named_parameters() if not is_adapter(name)} - trained_names(backbone)
    return {name for name in names if not re.fullmatch(f'{backbone.fresh}|{backbone.tables}', name)}


def digests(backbone: Backbone) -> dict[str, str]:
    """A digest of each tensor that ``base_names`` names, computed once and kept until the tensor is written to.

    Values are taken as fp32, so that the dtype in which a base is held makes no difference.

    Raises:
        ValueError: The tensors are shards, held by several processes.
    """
    _check_whole(backbone)
    kept = backbone.digests = backbone.digests or {}
    names = sorted(base_names(backbone))
    for name in names:
        tensor = backbone.get_parameter(name)
        if name not in kept or kept[name][0] != tensor._version:
            kept[name] = tensor._version, digest(tensor)
    return {name: kept[name][1] for name in names}


def _check_whole(backbone: Backbone) -> None:
    sharded = [name for name, p in backbone.named_parameters() if any(hasattr(p, mark) for mark in SHARD_MARKS)]
    if sharded:
        raise ValueError(
            f'{len(sharded)} parameters of {type(backbone).__name__} are shards, for example {sharded[0]}: this '
            'process does not hold the whole base. Let mmpeft.AdapterCheckpointHook write the adapter file, or load a '
            'checkpoint with whole tensors into a model of one process.'
        )


@torch.no_grad()
def digest(tensor: Tensor) -> str:
    """The start of the SHA-256 of a tensor's shape and of its values as little-endian fp32."""
    values = tensor.float().cpu().contiguous().numpy().astype('<f4', copy=False)
    hashed = hashlib.sha256(f'{tuple(tensor.shape)}'.encode())
    hashed.update(values.reshape(-1).view('u1'))
    return hashed.hexdigest()[:DIGEST_LENGTH]


def fingerprint(backbone: Backbone) -> str:
    """One hash over the names and digests of the frozen base of an adapted backbone, as 64 hexadecimal digits.

    Raises:
        ValueError: No method was injected into ``backbone``.
    """
    return combined(digests(backbone))


def combined(parts: Mapping[str, str]) -> str:
    """One hash over digests by name."""
    lines = ''.join(f'{name} {parts[name]}\n' for name in sorted(parts))
    return hashlib.sha256(lines.encode()).hexdigest()
