"""Save what training changed, and load it into a model of the same base after checking that it is."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Any

from torch import Tensor, nn

from mmpeft.adapter_file import FACTS, TIMM, AdapterInfo, BaseNotFoundError, is_place, write_file
from mmpeft.contents import adapted_backbone, differences_of, missing_base, tensors_to_save
from mmpeft.fingerprint import digests, rounded_digests
from mmpeft.hosts import Backbone
from mmpeft.hosts.host import qualified_name
from mmpeft.opened_file import AdapterFile, described, read_adapters
from mmpeft.report import listed
from mmpeft.version import __version__

__all__ = [
    'AdapterFile',
    'adapted_backbone',
    'differences_of',
    'load_adapters',
    'missing_base',
    'read_adapters',
    'save_adapters',
    'tensors_to_save',
    'write_adapters',
]


def save_adapters(
    model: nn.Module,
    path: str | Path,
    *,
    overwrite: bool = False,
    dataset_meta: Mapping | None = None,
    base: str | None = None,
    facts: Mapping[str, str] | None = None,
) -> None:
    """Write what training changed in ``model`` to a ``.safetensors`` file, atomically.

    The file holds all that is not the frozen base: adapters, trained tensors of the base, output norms, tables of
    positions, and the neck and heads with their buffers.

    Args:
        model: An adapted backbone, or a whole model with one.
        path: The file to write.
        overwrite: Replace a file that exists.
        dataset_meta: ``classes`` and ``palette`` of the task; by default ``model.dataset_meta``, if there is one.
        base: Where the base comes from, for whoever loads the file; by default the file of the backbone's ``init_cfg``.
        facts: What the run says of itself beside its tensors, for soups: ``start``, the SHA-256 of the start file that
            it loaded, and ``heldout``, that of the list of images that were held out of training.

    Raises:
        FileExistsError: The file exists, and ``overwrite`` is not set.
        BaseNotFoundError: The base was never given weights, so that nobody could load the file.
        ValueError: No method was injected into ``model``, or the file has another ending.
    """
    path = Path(path).expanduser()
    if path.suffix != '.safetensors':
        raise ValueError(f'An adapter file ends in .safetensors, got {path}.')
    if path.exists() and not overwrite:
        raise FileExistsError(f'{path} exists; pass overwrite=True to replace it.')
    task = dataset_meta or getattr(model, 'dataset_meta', None)
    write_adapters(path, model, model.state_dict(), task, base, facts)


def write_adapters(
    path: Path,
    model: nn.Module,
    state: Mapping[str, Tensor],
    dataset_meta: Mapping | None,
    base: str | None,
    facts: Mapping[str, str] | None = None,
) -> None:
    """Write those tensors of ``state``, a state dict of ``model``, that are not its frozen base."""
    name, backbone = adapted_backbone(model)
    missing = missing_base(backbone)
    if missing:
        raise BaseNotFoundError(
            f'{path} would be of no use: {listed(missing)} of its base were never given pretrained weights, and the '
            'file does not hold the base. Save the whole model instead.'
        )
    info = AdapterInfo(
        methods=described(backbone),
        host=qualified_name(backbone.stock),
        backbone=name,
        digests=digests(backbone),
        roundings=rounded_digests(backbone),
        base=_portable(base or _source_of(backbone)),
        version=__version__,
        **_task(dataset_meta or {}),
        **_known_facts(facts or {}),
    )
    write_file(path, info, tensors_to_save(model, state))


def load_adapters(model: nn.Module, path: str | Path, *, fetch_base: bool = False) -> AdapterInfo:
    """Load an adapter file into ``model``, after checking that it is whole, of this model and of this base.

    Args:
        model: A model with the same adapters on the same base.
        path: A file of ``save_adapters``.
        fetch_base: Where the model waits for its base: fetch it from an address that nobody names but the file.

    Returns:
        What the file says of itself.

    Raises:
        AdapterFileError: The file is refused, and the model is as it was.
    """
    file = replace(read_adapters(path), fetch_base=fetch_base)
    file.check_model(model)
    model.load_state_dict(file.tensors, strict=False)
    return file.info


def _source_of(backbone: Backbone) -> str | None:
    return (backbone.pretrained_cfg or {}).get('checkpoint')


def _task(dataset_meta: Mapping) -> dict[str, Any]:
    """The classes and the palette, as they come back from JSON; a palette may be the name of one."""
    classes, palette = dataset_meta.get('classes'), dataset_meta.get('palette')
    colours = None if palette is None or isinstance(palette, str) else [[int(c) for c in colour] for colour in palette]
    return dict(classes=None if classes is None else [str(name) for name in classes], palette=colours)


def _known_facts(facts: Mapping[str, str]) -> dict[str, str]:
    unknown = facts.keys() - set(FACTS)
    if unknown:
        raise ValueError(f'A run says {", ".join(FACTS)} of itself, and not {", ".join(sorted(unknown))}.')
    return dict(facts)


def _portable(place: str | None) -> str | None:
    """A URL or relative path as it is, of any other path the name alone: it means nothing on another machine."""
    if place is None or is_place(place):
        return place
    prefix = TIMM if place.startswith(TIMM) else ''
    return None if '://' in place else prefix + PurePath(place.removeprefix(TIMM)).name
