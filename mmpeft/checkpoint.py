"""Save what training changed, and load it into a model of the same base after checking that it is."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from torch import Tensor, nn

from mmpeft.adapter_file import (
    TIMM,
    AdapterInfo,
    BaseNotFoundError,
    WrongBaseError,
    WrongModelError,
    is_place,
    parse,
    read_safetensors,
    write_file,
)
from mmpeft.fingerprint import base_names, combined, digests
from mmpeft.freeze import adapted_backbones, is_adapter
from mmpeft.hosts import Backbone, qualified_name
from mmpeft.inject import full_options
from mmpeft.methods.tuning import NORMS
from mmpeft.report import listed


@dataclass(frozen=True)
class AdapterFile:
    """An adapter file that was read and found whole; it belongs to no model yet."""

    path: str
    info: AdapterInfo
    tensors: dict[str, Tensor]

    @property
    def _place(self) -> str:
        return self.info.base or 'at no known place'

    def check_model(self, model: nn.Module) -> None:
        """Refuse a model that the file is not of.

        Raises:
            AdapterFileError: With what the file holds and what the model expects.
        """
        name, backbone = adapted_backbone(model)
        if name != self.info.backbone:
            raise WrongModelError(
                f'{self.path} is of a model whose backbone is named {self.info.backbone!r}; in {type(model).__name__} '
                f'it is {name!r}. Pass the whole model if the file is of one.'
            )
        self._check_methods(backbone)
        self._check_tensors(model, '')
        self._check_base(backbone)

    def check_backbone(self, backbone: Backbone, prefix: str) -> None:
        """As ``check_model``, for a backbone alone whose tensors have names that begin with ``prefix``."""
        self._check_methods(backbone)
        self._check_tensors(backbone, prefix)
        self._check_base(backbone)

    def check_start(self, model: nn.Module) -> list[str]:
        """Refuse a model whose training cannot start from the file: one of another backbone, base or adapters.

        Returns:
            How the rest, necks and heads, differs; what differs does not start from the file.

        Raises:
            AdapterFileError: As ``check_model``.
        """
        name, backbone = adapted_backbone(model)
        if name != self.info.backbone:
            self.check_model(model)
        self.check_backbone(backbone, f'{name}.')
        return differences_of(self.tensors, tensors_to_save(model, model.state_dict()))

    def _check_methods(self, backbone: Backbone) -> None:
        host, methods = qualified_name(backbone.stock), _described(backbone)
        if self.info.host != host:
            raise WrongModelError(f'{self.path} is of adapters in a {self.info.host}; this backbone is a {host}.')
        if self.info.methods != methods:
            raise WrongModelError(f'{self.path} is of {self.info.methods}; this backbone carries {methods}.')

    def _check_tensors(self, module: nn.Module, prefix: str) -> None:
        found = {name.removeprefix(prefix): tensor for name, tensor in self.tensors.items() if name.startswith(prefix)}
        expected = tensors_to_save(module, module.state_dict())
        differences = differences_of(found, expected)
        if differences:
            raise WrongModelError(f'{self.path} is of another model than this one: it {", and ".join(differences)}.')

    def _check_base(self, backbone: Backbone) -> None:
        if backbone.missing and backbone.find_base is not None:
            backbone.find_base(backbone, self)
        missing = missing_base(backbone)
        if missing:
            raise BaseNotFoundError(
                f'The base of {self.path} (fingerprint {self.info.fingerprint[:12]}) is not in the model: '
                f'{listed(missing)} have no pretrained values. The file says that it is {self._place}; put it there, '
                "or name it by backbone.init_cfg=dict(type='Pretrained', checkpoint=...)."
            )
        self.check_digests(backbone)

    def check_digests(self, backbone: Backbone) -> None:
        """Refuse a base other than the one that the file was trained on.

        Raises:
            WrongBaseError: With both fingerprints and the names of the tensors that differ.
        """
        own = digests(backbone)
        if own == self.info.digests:
            return
        names = sorted(own.keys() | self.info.digests.keys())
        other = [name for name in names if own.get(name) != self.info.digests.get(name)]
        raise WrongBaseError(
            f'{self.path} was trained on another base: its fingerprint is {self.info.fingerprint[:12]}, and that of '
            f'this backbone {combined(own)[:12]}. {len(other)} of {len(names)} tensors differ: {listed(other)}. '
            f'The file says that its base is {self._place}.'
        )


def read_adapters(path: str | Path) -> AdapterFile:
    """Read an adapter file without a model to load it into.

    Raises:
        AdapterFileError: It is missing, damaged, of an unknown version, or no adapter file.
    """
    path = Path(path).expanduser()
    metadata, tensors = read_safetensors(path)
    return AdapterFile(str(path), parse(path, metadata, tensors), tensors)


def save_adapters(
    model: nn.Module,
    path: str | Path,
    *,
    overwrite: bool = False,
    dataset_meta: Mapping | None = None,
    base: str | None = None,
    start: str | None = None,
    heldout: str | None = None,
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
        start: The SHA-256 of the start file that the run loaded, which soups ask for.
        heldout: The SHA-256 of the list of images that were held out of training, which soups ask for.

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
    write_adapters(path, model, model.state_dict(), task, base, start, heldout)


def write_adapters(
    path: Path,
    model: nn.Module,
    state: Mapping[str, Tensor],
    dataset_meta: Mapping | None,
    base: str | None,
    start: str | None = None,
    heldout: str | None = None,
) -> None:
    """Write those tensors of ``state``, a state dict of ``model``, that are not its frozen base."""
    from mmpeft import __version__

    name, backbone = adapted_backbone(model)
    missing = missing_base(backbone)
    if missing:
        raise BaseNotFoundError(
            f'{path} would be of no use: {listed(missing)} of its base were never given pretrained weights, and the '
            'file does not hold the base. Save the whole model instead.'
        )
    info = AdapterInfo(
        methods=_described(backbone),
        host=qualified_name(backbone.stock),
        backbone=name,
        digests=digests(backbone),
        base=_portable(base or _source_of(backbone)),
        version=__version__,
        start=start,
        heldout=heldout,
        **_task(dataset_meta or {}),
    )
    write_file(path, info, {key: _own(tensor) for key, tensor in tensors_to_save(model, state).items()})


def load_adapters(model: nn.Module, path: str | Path) -> AdapterInfo:
    """Load an adapter file into ``model``, after checking that it is whole, of this model and of this base.

    Args:
        model: A model with the same adapters on the same base.
        path: A file of ``save_adapters``.

    Returns:
        What the file says of itself.

    Raises:
        AdapterFileError: The file is refused, and the model is as it was.
    """
    file = read_adapters(path)
    file.check_model(model)
    model.load_state_dict(file.tensors, strict=False)
    return file.info


def differences_of(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> list[str]:
    """What a file with the tensors ``found`` lacks of those ``expected``, has besides, or has in other shapes."""
    lacking, extra = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
    differences = [f'lacks {listed(lacking)}'] if lacking else []
    differences += [f'has {listed(extra)} besides'] if extra else []
    differences += [
        f'has {name} of shape {tuple(found[name].shape)}, and the model one of {tuple(tensor.shape)}'
        for name, tensor in expected.items()
        if name in found and found[name].shape != tensor.shape
    ][:3]
    return differences


def missing_base(backbone: Backbone) -> list[str]:
    """The names of the frozen tensors of the base that were never given a value."""
    return sorted(backbone.missing & base_names(backbone))


def adapted_backbone(model: nn.Module) -> tuple[str, Backbone]:
    """The one adapted backbone of ``model`` and its name.

    Raises:
        ValueError: There is none, or more than one.
    """
    found = adapted_backbones(model)
    if len(found) != 1:
        names = f': {", ".join(found)}' if found else '; call mmpeft.inject on its backbone first'
        raise ValueError(f'{type(model).__name__} has {len(found)} adapted backbones{names}. A file is of one.')
    return next(iter(found.items()))


def tensors_to_save(model: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those of the tensors of ``model`` that an adapter file holds: all but the frozen base and its constants."""
    left_out = set()
    for name, backbone in adapted_backbones(model).items():
        left_out |= {f'{name}.{leaf}'.lstrip('.') for leaf in base_names(backbone) | _constants(backbone)}
    return {name: tensor for name, tensor in state.items() if name not in left_out}


def _constants(backbone: Backbone) -> set[str]:
    """The buffers of a backbone that nothing changes: indices and the like, not the statistics of norms."""
    owners = {name: module for name, module in backbone.named_modules() if not isinstance(module, NORMS)}
    names = {f'{owner}.{leaf}'.lstrip('.') for owner, module in owners.items() for leaf in module._buffers}
    return {name for name in names if not is_adapter(name)}


def _described(backbone: Backbone) -> list[dict]:
    """The methods of a backbone with every option, as they come back from JSON."""
    return json.loads(json.dumps([full_options(config) for config in backbone.adapter_methods]))


def _source_of(backbone: Backbone) -> str | None:
    return (backbone.pretrained_cfg or {}).get('checkpoint')


def _task(dataset_meta: Mapping) -> dict[str, Any]:
    """The classes and the palette, as they come back from JSON; a palette may be the name of one."""
    classes, palette = dataset_meta.get('classes'), dataset_meta.get('palette')
    colours = None if palette is None or isinstance(palette, str) else [[int(c) for c in colour] for colour in palette]
    return dict(classes=None if classes is None else [str(name) for name in classes], palette=colours)


def _portable(place: str | None) -> str | None:
    """A URL or relative path as it is, of any other path the name alone: it means nothing on another machine."""
    if place is None or is_place(place):
        return place
    prefix = TIMM if place.startswith(TIMM) else ''
    return None if '://' in place else prefix + PurePath(place.removeprefix(TIMM)).name


def _own(tensor: Tensor) -> Tensor:
    """The tensor with memory of its own: some heads share a layer, and safetensors refuses shared memory."""
    return tensor.detach().cpu().contiguous().clone()
