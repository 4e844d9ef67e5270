"""The fingerprint of a base: digests of the pretrained tensors that stay frozen."""

import hashlib
import re
from collections.abc import Mapping

import torch
from torch import Tensor

from mmpeft.freeze import is_adapter, trained_names
from mmpeft.hosts import Backbone
from mmpeft.hosts.host import is_shard

DIGEST_LENGTH = 16
# The dtypes, beside fp32, in which a base may be held and is still known.
HALVES = {'bfloat16': torch.bfloat16, 'float16': torch.float16}


def base_names(backbone: Backbone) -> set[str]:
    """The names of the parameters that a pretrained file gives and training leaves alone.

    Not among them are what the methods train, the output norms, and the tables of positions, which a task may have
    resized.
    """
    names = {name for name, _ in backbone.named_parameters() if not is_adapter(name)} - trained_names(backbone)
    return {name for name in names if not re.fullmatch(f'{backbone.fresh}|{backbone.tables}', name)}


def known_base(backbone: Backbone) -> dict[str, str]:
    """The names by which files know the base, and those of its parameters, in order."""
    names = (name for name in base_names(backbone) if not re.fullmatch(backbone.beyond, name))
    return dict(sorted((backbone.known_as(name), name) for name in names))


def base_tensors(backbone: Backbone) -> dict[str, Tensor]:
    """The tensors of the base by the names by which files know them, in order.

    Raises:
        ValueError: The tensors are shards, held by several processes.
    """
    _check_whole(backbone)
    return {known: backbone.get_parameter(name) for known, name in known_base(backbone).items()}


def digests(backbone: Backbone) -> dict[str, str]:
    """A digest of each tensor of the base, of its values as fp32.

    Nothing is kept from one call to the next: weights are exchanged in ways that leave no trace.

    Raises:
        ValueError: The tensors are shards, held by several processes.
    """
    return {name: digest(tensor) for name, tensor in base_tensors(backbone).items()}


def rounded_digests(backbone: Backbone) -> dict[str, dict[str, str]]:
    """For each dtype of ``HALVES`` a digest of each tensor of the base as it is when it is held in that dtype."""
    tensors = base_tensors(backbone)
    return {half: {name: digest(tensor, dtype) for name, tensor in tensors.items()} for half, dtype in HALVES.items()}


def _check_whole(backbone: Backbone) -> None:
    sharded = [name for name, p in backbone.named_parameters() if is_shard(p)]
    if sharded:
        raise ValueError(
            f'{len(sharded)} parameters of {type(backbone).__name__} are shards, for example {sharded[0]}: this '
            'process does not hold the whole base. Let mmpeft.AdapterCheckpointHook write the adapter file, or load a '
            'checkpoint with whole tensors into a model of one process.'
        )


@torch.no_grad()
def digest(tensor: Tensor, dtype: torch.dtype = torch.float32) -> str:
    """The start of the SHA-256 of a tensor's shape and of its values in a dtype, little-endian."""
    values = tensor.cpu().to(dtype).contiguous().reshape(-1)
    words = values.view(torch.int32 if dtype.itemsize == 4 else torch.int16).numpy()
    hashed = hashlib.sha256(f'{tuple(tensor.shape)}'.encode())
    hashed.update(words.astype(f'<i{dtype.itemsize}', copy=False).view('u1'))
    return hashed.hexdigest()[:DIGEST_LENGTH]


def fingerprint(backbone: Backbone) -> str:
    """One hash over the names and digests of the frozen base of an adapted backbone, as 64 hexadecimal digits.

    Values are taken as fp32: a base that was rounded to half precision has other values, and another fingerprint.

    Raises:
        ValueError: No method was injected into ``backbone``.
    """
    return combined(digests(backbone))


def combined(parts: Mapping[str, str]) -> str:
    """One hash over digests by name."""
    lines = ''.join(f'{name} {parts[name]}\n' for name in sorted(parts))
    return hashlib.sha256(lines.encode()).hexdigest()
