"""An adapter file that was read, and whether a model and a base are those that it is of."""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from mmpeft.adapter_file import (
    AdapterInfo,
    BaseNotFoundError,
    WrongBaseError,
    WrongModelError,
    parse,
    read_safetensors,
)
from mmpeft.contents import adapted_backbone, as_known, differences_of, missing_base, tensors_to_save
from mmpeft.fingerprint import HALVES, base_tensors, combined, digest, known_base
from mmpeft.hosts import Backbone
from mmpeft.hosts.host import qualified_name
from mmpeft.methods.configs import full_options, normal
from mmpeft.report import listed

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
            known = {known: base[own] for known, own in known_base(backbone).items() if own in base}
            self.check_digests(known, 'the base that is given')

    def check_backbone(self, backbone: Backbone, prefix: str) -> None:
        """As ``check_model``, for a backbone alone whose tensors have names that begin with ``prefix``."""
        self._check_adapters(backbone)
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
        return self._differences(self.tensors, model)

    def check_shapes(self, model: nn.Module) -> None:
        """As ``check_model``, without a look at any value: ``model`` may be on torch's meta device."""
        self._check_adapters(adapted_backbone(model)[1])
        self._check_tensors(model, '')

    def _check_adapters(self, backbone: Backbone) -> None:
        """Refuse a backbone of another class, with other methods, or with another set of frozen tensors."""
        host, methods = qualified_name(backbone.stock), described(backbone)
        if self.info.host != host:
            raise WrongModelError(f'{self.path} is of adapters in a {self.info.host}; this backbone is a {host}.')
        if in_order(self.info.methods) != in_order(methods):
            raise WrongModelError(f'{self.path} is of {self.info.methods}; this backbone carries {methods}.')
        other = sorted(known_base(backbone).keys() ^ self.info.digests.keys())
        if other:
            raise WrongBaseError(f'{self.path} is of a base with other tensors: one of the two has no {listed(other)}.')

    def _check_tensors(self, module: nn.Module, prefix: str) -> None:
        found = {name.removeprefix(prefix): tensor for name, tensor in self.tensors.items() if name.startswith(prefix)}
        differences = self._differences(found, module)
        if differences:
            raise WrongModelError(f'{self.path} is of another model than this one: it {", and ".join(differences)}.')

    @staticmethod
    def _differences(found: Mapping[str, Tensor], module: nn.Module) -> list[str]:
        expected = tensors_to_save(module, module.state_dict())
        return differences_of(as_known(module, found), as_known(module, expected))

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


def described(backbone: Backbone) -> list[dict]:
    """The methods of a backbone with every option."""
    return [full_options(config) for config in backbone.adapter_methods]


def in_order(methods: Iterable[Mapping]) -> list[dict]:
    """The configs of methods with all their options in the one way in which they are compared."""
    return sorted(map(normal, methods), key=lambda method: json.dumps(method, sort_keys=True, default=repr))
