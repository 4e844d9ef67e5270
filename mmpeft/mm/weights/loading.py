"""Teach mmengine's checkpoint loader safetensors files, adapter files among them."""

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.runner.checkpoint import CheckpointLoader
from torch import Tensor

from mmpeft.adapter_file import KEY, AdapterInfo, parse, read_safetensors
from mmpeft.mm.weights.sources import fetch
from mmpeft.opened_file import AdapterFile


@CheckpointLoader.register_scheme(prefixes=r'(?!https?://).*\.safetensors$')
def load_from_safetensors(filename: str, map_location: Any = None) -> dict[str, Any]:
    """Read a local safetensors file as mmengine reads a checkpoint.

    An adapter file rides along in the state dict's metadata to the adapted backbone that is to take it: there it is
    checked, and the base loaded if nobody has done so.

    Args:
        filename: The file.
        map_location: As for ``torch.load``; in the file all tensors are on the CPU.

    Raises:
        FileNotFoundError: There is no such file.
        AdapterFileError: It is cut off or damaged, or of another kind.
    """
    path = Path(filename).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f'{path} does not exist.')
    metadata, tensors = read_safetensors(path)
    state = OrderedDict((name, _moved(tensor, map_location)) for name, tensor in tensors.items())
    if KEY not in metadata:
        return dict(state_dict=state)
    info = parse(path, metadata, tensors)
    state._metadata = OrderedDict({info.backbone: {KEY: AdapterFile(str(path), info, tensors)}})
    return dict(state_dict=state, meta=_meta(info))


@CheckpointLoader.register_scheme(prefixes=['hf://', r'https?://[^#]+\.safetensors'])
def load_from_source(filename: str, map_location: Any = None) -> dict[str, Any]:
    """Fetch a shared safetensors file, as ``mmpeft.mm.weights.sources.fetch`` does, and read it.

    Raises:
        UserError: The file cannot be fetched.
        AdapterFileError: It has another sum than the one given, or is damaged.
    """
    return load_from_safetensors(str(fetch(filename)), map_location)


def _moved(tensor: Tensor, map_location: Any) -> Tensor:
    """A tensor where ``torch.load`` would put it."""
    if callable(map_location):
        storage = map_location(tensor.untyped_storage(), 'cpu')
        map_location = None if storage is None else storage.device
    elif isinstance(map_location, Mapping):
        map_location = map_location.get('cpu')
    return tensor if map_location is None else tensor.to(map_location)


def adapter_file_in(checkpoint: dict[str, Any]) -> AdapterFile | None:
    """The adapter file that a loaded checkpoint came from, if it came from one."""
    metadata = getattr(checkpoint.get('state_dict'), '_metadata', {})
    return next((entry[KEY] for entry in metadata.values() if KEY in entry), None)


def _meta(info: AdapterInfo) -> dict[str, Any]:
    """The classes and colours under the names by which mm's inference APIs look for them."""
    task = dict(classes=info.classes and tuple(info.classes), palette=info.palette and [*map(tuple, info.palette)])
    return dict(dataset_meta={name: value for name, value in task.items() if value}) if info.classes else {}
