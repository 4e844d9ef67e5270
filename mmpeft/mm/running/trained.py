"""A trained model: what a config describes, with the weights of a checkpoint or of an adapter file."""

import copy
from collections.abc import Mapping
from typing import Any

from mmengine.config import Config
from mmengine.registry import MODELS
from mmengine.runner import CheckpointLoader
from torch import Tensor, nn

from mmpeft.mm.checks import UserError
from mmpeft.mm.weights.checkpoints import check_file, checkpoints_as_data
from mmpeft.mm.weights.loading import adapter_file_in
from mmpeft.report import listed


def load_trained(cfg: Config, checkpoint: str) -> tuple[nn.Module, Mapping[str, Any]]:
    """Build the model of ``cfg`` and give it the weights of a checkpoint.

    Args:
        cfg: A config whose library is registered and whose scope is the default one.
        checkpoint: A file or URL with the weights of the whole model, or an adapter file, whose base is looked for
            where the config or the file says.

    Returns:
        The model, and what was read from the checkpoint.

    Raises:
        UserError: The checkpoint cannot be read, or is not of this model.
        AdapterFileError: The adapter file is of another model or base.
    """
    if '://' not in checkpoint:
        check_file(checkpoint)
    with checkpoints_as_data(cfg):
        loaded = CheckpointLoader.load_checkpoint(checkpoint, map_location='cpu')
    model = MODELS.build(copy.deepcopy(cfg.model))
    file = adapter_file_in(loaded)
    if file is None:
        _load_whole(model, loaded.get('state_dict', loaded), checkpoint)
    else:
        file.check_model(model)
        model.load_state_dict(file.tensors, strict=False)
    return model, loaded


def _load_whole(model: nn.Module, state: Mapping[str, Tensor], path: str) -> None:
    """Load ``state`` and refuse it if it is not of this very model."""
    try:
        missing, unexpected = model.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise UserError(f'{path} is of another model: {str(error).splitlines()[-1].strip()}') from error
    differences = [f'lacks {listed(missing)}'] if missing else []
    differences += [f'has {listed(unexpected)} besides'] if unexpected else []
    if differences:
        raise UserError(f'{path} is of another model than the config: it {" and ".join(differences)}.')
