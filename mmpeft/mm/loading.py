"""Teach mmengine's checkpoint loader safetensors files."""

import os

from mmengine.runner.checkpoint import CheckpointLoader
from safetensors import SafetensorError, safe_open
from torch import Tensor


@CheckpointLoader.register_scheme(prefixes=r'(?!https?://).*\.safetensors$')
def load_from_safetensors(filename: str, map_location: str | None = None) -> dict[str, dict[str, Tensor]]:
    """Read a local safetensors file as mmengine reads a checkpoint.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is not a safetensors file, or it is cut off.
    """
    path = os.path.expanduser(filename)
    if not os.path.isfile(path):
        raise FileNotFoundError(f'{path} does not exist.')
    try:
        with safe_open(path, framework='pt', device=str(map_location or 'cpu')) as file:
            return {'state_dict': {name: file.get_tensor(name) for name in file.keys()}}
    except SafetensorError as error:
        raise ValueError(f'{path} is not a whole safetensors file: {error}') from error
