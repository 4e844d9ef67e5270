"""Save what training changed, and load it into a model of the same base after checking that it is."""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any

import torch
from torch import Tensor, nn

from mmpeft.adapter_file import (
    FACTS,
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
from mmpeft.contents import adapted_backbone, differences_of, missing_base, tensors_to_save
from mmpeft.fingerprint import HALVES, base_names, base_tensors, combined, digest, digests, rounded_digests
from mmpeft.hosts import Backbone
from mmpeft.hosts.host import qualified_name
from mmpeft.methods.configs import full_options, normal
from mmpeft.report import listed
from mmpeft.version import __version__

# In the environment: 1 allows to fetch a base from another machine that only an adapter file names.
CONSENT = 'MMPEFT_FETCH_BASE'


@dataclass(frozen=True)
class AdapterFile:
    """An adapter file that was read and found whole; it belongs to no model yet.

    ``fetch_base`` allows to fetch a base from another machine that nobody names but the file.
    """

    path: str
    info: AdapterInfo
    tensors: dict[str, Tensor]
    fetch_base: bool = False

    @property
    def may_fetch(self) -> bool:
        """Whether the user allows to fetch what only the file names: by ``fetch_base``, or in the environment."""
        return self.fetch_base or os.environ.get(CONSENT) == '1'

    @property
    def _place(self) -> str:
        return self.info.base or 'at no known place'

    def check_model(self, model: nn.Module, base: Mapping[str, Tensor] | None = None) -> None:
        """Refuse a model that the file is not of.

        Args:
            model: An adapted backbone, or a whole model with one.
            base: The base that the backbone is about to get; by default the one that it has.

        Raises:
            AdapterFileError: With what the file holds and what the model expects.
        """
        name, backbone = adapted_backbone(model)
        if name != self.info.backbone:
            raise WrongModelError(
                f'{self.path} is of a model whose backbone is named {self.info.backbone!r}; in {type(model).__name__} '
                f'it is {name!r}. Pass the whole model if the file is of one.'
            )
        self.check_shapes(model)
        if base is None:
            self._check_base(backbone)
        else:
            self.check_digests(base, 'the base that is given')

    def check_backbone(self, backbone: Backbone, prefix: str) -> None:
        """As ``check_model``, for a backbone alone whose tensors have names that begin with ``prefix``."""
        self._check_adapters(backbone)
        self._check_tensors(backbone, prefix)
        self._check_base(backbone)

    def check_shapes(self, model: nn.Module) -> None:
        """As ``check_model``, without a look at any value: ``model`` may be on torch's meta device."""
        self._check_adapters(adapted_backbone(model)[1])
        self._check_tensors(model, '')

    def _check_adapters(self, backbone: Backbone) -> None:
        """Refuse a backbone of another class, with other methods, or with another set of frozen tensors."""
        host, methods = qualified_name(backbone.stock), _described(backbone)
        if self.info.host != host:
            raise WrongModelError(f'{self.path} is of adapters in a {self.info.host}; this backbone is a {host}.')
        if in_order(self.info.methods) != in_order(methods):
            raise WrongModelError(f'{self.path} is of {self.info.methods}; this backbone carries {methods}.')
        other = sorted(base_names(backbone) ^ self.info.digests.keys())
        if other:
            raise WrongBaseError(f'{self.path} is of a base with other tensors: one of the two has no {listed(other)}.')

    def _check_tensors(self, module: nn.Module, prefix: str) -> None:
        found = {name.removeprefix(prefix): tensor for name, tensor in self.tensors.items() if name.startswith(prefix)}
        expected = tensors_to_save(module, module.state_dict())
        differences = differences_of(found, expected)
        if differences:
            raise WrongModelError(f'{self.path} is of another model than this one: it {", and ".join(differences)}.')

    def _check_base(self, backbone: Backbone) -> None:
        if not missing_base(backbone):
            self.check_digests(base_tensors(backbone), 'this backbone')
            return
        if backbone.find_base is not None:
            backbone.find_base(backbone, self)  # which checks what it finds
        missing = missing_base(backbone)
        if missing:
            raise BaseNotFoundError(
                f'The base of {self.path} (fingerprint {self.info.fingerprint[:12]}) is not in the model: '
                f'{listed(missing)} have no pretrained values. The file says that it is {self._place}; put it there, '
                "or name it by backbone.init_cfg=dict(type='Pretrained', checkpoint=...)." + self._how_to_fetch()
            )

    def _how_to_fetch(self) -> str:
        if '://' not in self._place or self.may_fetch:
            return ''
        return f' From there it is fetched only if you say so: load_adapters(..., fetch_base=True), or {CONSENT}=1.'

    def check_digests(self, base: Mapping[str, Tensor], which: str) -> None:
        """Refuse a base other than the one that the file was trained on.

        Each tensor is compared in the dtype in which it is held: with the file's values as fp32, or with their
        roundings to bfloat16 or float16.

        Args:
            base: The tensors of the base by their names in the backbone; there may be more than the file knows.
            which: What to call it.

        Raises:
            WrongBaseError: With both fingerprints and the names of the tensors that differ.
        """
        own, expected, dtypes = {}, {}, set()
        for name in sorted(base.keys() & self.info.digests.keys()):
            held = str(base[name].dtype).removeprefix('torch.')
            known = (self.info.roundings or {}).get(held)
            expected[name] = (known or self.info.digests)[name]
            own[name] = digest(base[name], HALVES[held] if known else torch.float32)
            dtypes.add(held)
        if own == expected and own.keys() == self.info.digests.keys():
            return
        raise WrongBaseError(self._difference(own, expected, dtypes, which))

    def _difference(self, own: dict[str, str], expected: dict[str, str], dtypes: set[str], which: str) -> str:
        other = [name for name in sorted(self.info.digests) if name not in own or own[name] != expected[name]]
        held = ' and '.join(sorted(dtypes)) or 'no dtype'
        old = self.info.roundings is None and not dtypes.isdisjoint(HALVES)
        return (
            f'{self.path} was trained on another base: held in {held}, its fingerprint is {combined(expected)[:12]}, '
            f'and that of {which} {combined(own)[:12]}. {len(other)} of {len(self.info.digests)} tensors differ: '
            f'{listed(other)}. The file says that its base is {self._place}.'
            + ' It is too old to know its base rounded: load it in float32, and convert the model then.'
            * old
        )


def read_adapters(path: str | Path, mapped: bool = False) -> AdapterFile:
    """Read an adapter file without a model to load it into.

    Args:
        path: The file.
        mapped: Leave the tensors in the file and read them when they are used: they change with it.

    Raises:
        AdapterFileError: It is missing, damaged, of an unknown version, or no adapter file.
    """
    path = Path(path).expanduser()
    metadata, tensors = read_safetensors(path, mapped)
    return AdapterFile(str(path), parse(path, metadata, tensors), tensors)


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
        methods=_described(backbone),
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


def in_order(methods: Iterable[Mapping]) -> list[dict]:
    """The configs of methods with all their options in the one way in which they are compared."""
    return sorted(map(normal, methods), key=lambda method: json.dumps(method, sort_keys=True, default=repr))


def _described(backbone: Backbone) -> list[dict]:
    """The methods of a backbone with every option."""
    return [full_options(config) for config in backbone.adapter_methods]


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
