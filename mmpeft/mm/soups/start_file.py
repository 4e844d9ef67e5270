"""Write the starting values that all runs of a sweep share: factors that are drawn anew do not average."""

from copy import deepcopy
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import load_checkpoint, set_random_seed

from mmpeft.adapter_file import is_place
from mmpeft.checkpoint import missing_base, write_adapters
from mmpeft.files import write_atomically
from mmpeft.freeze import adapted_backbones
from mmpeft.mm.checks import UserError
from mmpeft.mm.weights.checkpoints import checkpoints_as_data
from mmpeft.mm.weights.loading import adapter_file_in


def write_start(cfg: Config, folder: Path, seed: int) -> Path:
    """Build and initialise the model of a config as training does, and write it for ``load_from``.

    Args:
        cfg: A config of which ``register_library`` and ``inject_at_build`` are through.
        folder: Where the file goes.
        seed: What the starting values are drawn from.

    Returns:
        ``start.safetensors``, an adapter file with neck and heads; without adapters, or on a base that was never given
        weights, ``start.pth`` with the whole model.

    Raises:
        UserError: The base is a ``load_from`` that an adapter file could not name.
    """
    base = cfg.get('load_from')
    init_default_scope(cfg.default_scope)
    set_random_seed(seed)
    MMLogger.get_instance('start', log_level='WARNING')  # of how each layer was initialised nothing is told
    with checkpoints_as_data(cfg):
        model = MODELS.build(deepcopy(cfg.model))
        model.init_weights()
        # An adapter file is no base: its own stays the base.
        file = adapter_file_in(load_checkpoint(model, base, map_location='cpu')) if base else None
    base = file.info.base if file else base
    backbones = adapted_backbones(model).values()
    if not backbones or any(map(missing_base, backbones)):
        path = folder / 'start.pth'
        write_atomically(path, lambda file: torch.save(dict(meta={}, state_dict=model.state_dict()), file))
        return path
    if base and not is_place(base):
        raise UserError(f'load_from={base} is the base of all runs: give a URL, or a path below the current folder.')
    path = folder / 'start.safetensors'
    write_adapters(path, model, model.state_dict(), None, base)
    return path
