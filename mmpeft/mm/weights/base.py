"""Find the base of an adapter file for a model that was built without it, as inference APIs build one."""

import logging
from collections.abc import Callable, Iterator
from http.client import HTTPException
from pathlib import Path

import torch
from mmengine.logging import print_log
from mmengine.runner import CheckpointLoader

from mmpeft.adapter_file import TIMM
from mmpeft.checkpoint import AdapterFile
from mmpeft.fingerprint import base_names, digests
from mmpeft.hosts import Backbone
from mmpeft.mm.weights.checkpoints import checkpoints_as_data


def find_base(backbone: Backbone, file: AdapterFile) -> None:
    """Load the base of ``file`` into ``backbone`` from where the config or else the file itself says.

    A place that does not exist or holds another base is passed over with a line in the log; files are read as data.
    The backbone may ask for more of the base than the file knows, whose task may train the rest.
    """
    for place, load in _places(backbone, file):
        try:
            with checkpoints_as_data():
                load()
        except (OSError, ValueError, RuntimeError, KeyError, HTTPException) as error:
            print_log(f'No base for {file.path} from {place}: {error}', 'current', logging.WARNING)
            continue
        if not backbone.missing & base_names(backbone) and file.info.digests.items() <= digests(backbone).items():
            return


def _places(backbone: Backbone, file: AdapterFile) -> Iterator[tuple[str, Callable[[], None]]]:
    if backbone.pretrained_cfg is not None:
        yield backbone.pretrained_cfg['checkpoint'], backbone.init_weights
    base = file.info.base
    if base is None:
        return
    prefix, place = (TIMM, base.removeprefix(TIMM)) if base.startswith(TIMM) else ('', base)
    if '://' in place:
        yield base, lambda: load_base(backbone, base)
        return
    for path in (Path(place), Path(file.path).parent / place, _downloads() / Path(place).name):
        if path.is_file():
            yield str(path), lambda path=path: load_base(backbone, f'{prefix}{path}')


def _downloads() -> Path:
    return Path(torch.hub.get_dir(), 'checkpoints')


def load_base(backbone: Backbone, place: str) -> None:
    """Fill the frozen base from a checkpoint of the backbone or of a model with one."""
    checkpoint = CheckpointLoader.load_checkpoint(place, map_location='cpu')
    state = checkpoint.get('state_dict', checkpoint.get('model', checkpoint))
    wanted = base_names(backbone)
    backbone.load_state_dict(
        {name: state[key] for key in state if (name := key.removeprefix('backbone.')) in wanted}, strict=False
    )
