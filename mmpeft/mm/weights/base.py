"""Find the base of an adapter file for a model that was built without it, as inference APIs build one."""

import copy
import logging
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from http.client import HTTPException
from pathlib import Path

import torch
from mmengine.logging import print_log
from mmengine.runner import CheckpointLoader

from mmpeft.adapter_file import TIMM, WrongBaseError
from mmpeft.contents import missing_base
from mmpeft.fingerprint import base_tensors, known_base
from mmpeft.freeze import is_adapter
from mmpeft.hosts import Backbone
from mmpeft.mm.together import in_all
from mmpeft.mm.weights.checkpoints import checkpoints_as_data, state_in
from mmpeft.mm.weights.sources import fetch_base, folder_of
from mmpeft.opened_file import AdapterFile
from mmpeft.report import listed

# What a stock class or a reader may make of a file with whatever content.
UNUSABLE = (OSError, ValueError, TypeError, AttributeError, LookupError, RuntimeError, AssertionError, HTTPException)


def find_base(backbone: Backbone, file: AdapterFile) -> None:
    """Load the base of ``file`` into ``backbone`` from where the config or else the file itself says.

    Each candidate is loaded into a copy, compared, and only then taken over: a place that does not exist or holds
    another base is passed over with a line in the log, and the backbone is as it was. Files are read as data. What only
    the file names is fetched from another machine if the file ``may_fetch``; what an address gives is taken over by
    all processes or by none. The backbone may ask for more of the base than the file knows, whose task may train the
    rest.

    Raises:
        WrongBaseError: What was found is another base.
    """
    wrong = None
    for candidate in _candidates(file, backbone.pretrained_cfg):
        aside = copy.deepcopy(backbone)
        look = partial(_look, candidate, aside, file)
        try:
            in_all(look) if '://' in candidate.place else look()
        except UNUSABLE as error:
            print_log(f'No base for {file.path} from {candidate.place}: {error}', 'current', logging.WARNING)
            candidate.forget()
            wrong = wrong or (error if isinstance(error, WrongBaseError) else None)
            continue
        given = {n: t for n, t in aside.state_dict().items() if not is_adapter(n) and n not in aside.missing}
        backbone.load_state_dict(given, strict=False)
        return
    if wrong:
        raise wrong


@dataclass(frozen=True)
class Candidate:
    """A place where the base may be, what loads it from there into a backbone, and what forgets a copy of it."""

    place: str
    load: Callable[[Backbone], None]
    forget: Callable[[], None] = lambda: None


def _look(candidate: Candidate, aside: Backbone, file: AdapterFile) -> None:
    """Load a candidate and refuse it if it is not the base of ``file``."""
    with checkpoints_as_data():
        candidate.load(aside)
    missing = missing_base(aside)
    if missing:
        raise ValueError(f'it gives no {listed(missing)}.')
    file.check_digests(base_tensors(aside), candidate.place)


def _candidates(file: AdapterFile, init_cfg: Mapping | None) -> Iterator[Candidate]:
    if init_cfg is not None:
        yield Candidate(init_cfg['checkpoint'], lambda backbone: backbone.init_weights())
    base = file.info.base
    if base is None:
        return
    prefix, place = (TIMM, base.removeprefix(TIMM)) if base.startswith(TIMM) else ('', base)
    if '://' in place:
        if file.may_fetch:
            yield _remote(place, prefix)
        return
    for path in (Path(place), Path(file.path).parent / place, _downloads() / Path(place).name):
        if path.is_file():
            yield Candidate(str(path), lambda backbone, path=path: load_base(backbone, f'{prefix}{path}'))


def _remote(place: str, prefix: str) -> Candidate:
    """A base that only the file names: what was fetched and is not the base does not stay."""
    return Candidate(
        place,
        load=lambda backbone: load_base(backbone, f'{prefix}{fetch_base(place)}'),
        forget=lambda: shutil.rmtree(folder_of(place), ignore_errors=True),
    )


def _downloads() -> Path:
    return Path(torch.hub.get_dir(), 'checkpoints')


def load_base(backbone: Backbone, place: str) -> None:
    """Fill the frozen base from a checkpoint of the backbone or of a model with one."""
    state = state_in(CheckpointLoader.load_checkpoint(place, map_location='cpu'), place)
    wanted = known_base(backbone)
    named = ((key.removeprefix('backbone.'), tensor) for key, tensor in state.items())
    found = {wanted[known]: tensor for name, tensor in named if (known := backbone.known_as(name)) in wanted}
    backbone.load_state_dict(found, strict=False)
