"""The format of adapter files: safetensors with metadata that is checked before anybody relies on it."""

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmpeft.files import write_atomically
from mmpeft.fingerprint import HALVES, combined

FORMAT = 1
KEY = 'mmpeft'
# By which other readers of safetensors know whose tensors these are.
PYTORCH = {'format': 'pt'}
# What a run or a soup says of itself.
FACTS = ('start', 'heldout', 'soup')
# Fields that older files lack.
LATER = {*FACTS, 'roundings'}
# Before a place: the file there has timm's names, and is converted on loading.
TIMM = 'timm:'


class AdapterFileError(ValueError):
    """An adapter file cannot be used; nothing was changed."""


class DamagedFileError(AdapterFileError):
    """The file is cut off, altered, or no adapter file."""


class UnknownVersionError(AdapterFileError):
    """The file was written in a format that this version does not know."""


class WrongModelError(AdapterFileError):
    """The file is of a model with other adapters, tensors or shapes."""


class WrongBaseError(AdapterFileError):
    """The file was trained on another base."""


class BaseNotFoundError(AdapterFileError):
    """The base that the file was trained on was given neither by the config nor where the file says."""


@dataclass(frozen=True)
class AdapterInfo:
    """What an adapter file says of itself.

    Attributes:
        methods: The configs of the injected methods, with every option.
        host: The qualified name of the stock backbone's class.
        backbone: The name of the backbone in the model; empty if it is the model.
        digests: A digest for each frozen tensor of the base, by its name in the backbone, of its values as fp32.
        roundings: The same of the values rounded to 'bfloat16' and to 'float16'; None in older files.
        base: The path or URL that the base was loaded from, if it is known.
        classes: The names of the task's classes.
        palette: A colour (red, green, blue) for each class.
        version: The version of mmpeft that wrote the file.
        start: The SHA-256 of the start file that the run loaded, if it loaded one.
        heldout: The SHA-256 of the list of held-out images, which the run did not train on.
        soup: Of a soup, the name and, where it is known, the held-out score of each ingredient.
    """

    methods: list[dict]
    host: str
    backbone: str
    digests: dict[str, str]
    base: str | None = None
    classes: list[str] | None = None
    palette: list[list[int]] | None = None
    version: str = ''
    start: str | None = None
    heldout: str | None = None
    soup: list[list] | None = None
    roundings: dict[str, dict[str, str]] | None = None

    @property
    def fingerprint(self) -> str:
        """One hash over the base."""
        return combined(self.digests)


def write_file(path: Path, info: AdapterInfo, tensors: Mapping[str, Tensor]) -> None:
    """Write an adapter file, atomically.

    Raises:
        DamagedFileError: A field is not of its type, so that nobody could read the file.
    """
    text = json.dumps(asdict(info), sort_keys=True)
    _info(text, path)
    metadata = {**PYTORCH, KEY: text, f'{KEY}_format': str(FORMAT), f'{KEY}_checksum': checksum(text, tensors)}
    write_safetensors(path, tensors, metadata)


def write_safetensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file, atomically; what shares memory, as heads with one layer do, is written twice."""
    from safetensors.torch import save

    content = save({name: _own(tensor) for name, tensor in tensors.items()}, dict(metadata))
    write_atomically(path, lambda file: file.write(content))


def _own(tensor: Tensor) -> Tensor:
    """The tensor on the CPU with memory of its own."""
    return tensor.detach().cpu().contiguous().clone()


def parse(path: str | Path, metadata: Mapping[str, str], tensors: Mapping[str, Tensor]) -> AdapterInfo:
    """What a safetensors file says of itself as an adapter file, if not one bit of it has changed.

    Raises:
        AdapterFileError: It is damaged, of an unknown version, or no adapter file.
    """
    if KEY not in metadata:
        raise DamagedFileError(f'{path} is no adapter file: its metadata does not name mmpeft.')
    version = metadata.get(f'{KEY}_format')
    if version != str(FORMAT):
        raise UnknownVersionError(f'{path} is of format {version!r:.40}; this version of mmpeft reads format {FORMAT}.')
    if metadata.get(f'{KEY}_checksum') != checksum(metadata[KEY], tensors):
        raise DamagedFileError(f'{path} is damaged: its checksum is not that of its content.')
    return _info(metadata[KEY], path)


def read_safetensors(path: Path, mapped: bool = False) -> tuple[dict[str, str], dict[str, Tensor]]:
    """The metadata and the tensors of a safetensors file.

    Args:
        path: The file.
        mapped: Leave the tensors in the file and read them when they are used: they change with it.

    Raises:
        DamagedFileError: It is missing, cut off, or of another kind.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise DamagedFileError(f'No file {path}.')
    try:
        with safe_open(path, framework='pt') as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}
            return file.metadata() or {}, tensors if mapped else {n: tensor.clone() for n, tensor in tensors.items()}
    except (SafetensorError, OSError, RuntimeError, ValueError, TypeError, AttributeError, KeyError) as error:
        raise DamagedFileError(f'{path} is not a whole safetensors file: {error}') from error


def checksum(text: str, tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of the metadata and of the names, dtypes, shapes and bytes of the tensors."""
    hashed = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        hashed.update(f'\n{name} {tensor.dtype} {tuple(tensor.shape)}\n'.encode())
        hashed.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return hashed.hexdigest()


def _info(text: str, path: str | Path) -> AdapterInfo:
    """The metadata, each field of the right type.

    Raises:
        DamagedFileError: It is no JSON, or a field is missing, unknown or of another type.
    """
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DamagedFileError(f'{path} has metadata that is no JSON: {error}') from error
    names = {field.name for field in fields(AdapterInfo)}
    if not isinstance(values, dict) or not names - LATER <= values.keys() <= names:
        raise DamagedFileError(f'{path} has metadata other than {", ".join(sorted(names))}.')
    for name, value in values.items():
        if not CHECKS[name](value):
            raise DamagedFileError(f'{path} has metadata whose {name} is {value!r:.80}.')
    info = AdapterInfo(**values)
    if any(rounded.keys() != info.digests.keys() for rounded in (info.roundings or {}).values()):
        raise DamagedFileError(f'{path} has metadata whose roundings are of other tensors than its digests.')
    return info


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _list_of(is_right: Any, value: Any) -> bool:
    return isinstance(value, list) and all(map(is_right, value))


def _is_colour(value: Any) -> bool:
    return _list_of(lambda v: type(v) is int and 0 <= v < 256, value) and len(value) == 3


def _is_sum(value: Any) -> bool:
    return _is_text(value) and re.fullmatch('[0-9a-f]{64}', value) is not None


def _are_digests(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_text, value.values()))


def _are_roundings(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() == HALVES.keys() and all(map(_are_digests, value.values()))


def _is_ingredient(value: Any) -> bool:
    if not isinstance(value, list) or len(value) != 2:
        return False
    name, score = value
    return _is_text(name) and (score is None or (isinstance(score, float) and math.isfinite(score)))


def is_place(value: Any) -> bool:
    """Whether ``value`` is a URL, or a path that does not leave the folder it is looked up in."""
    if not _is_text(value) or '\0' in value:
        return False
    place = value.removeprefix(TIMM)
    if '://' in place:
        return place.startswith(('https://', 'http://', 'hf://'))
    return not Path(place).is_absolute() and '..' not in Path(place).parts


CHECKS = dict(
    methods=lambda value: bool(value) and _list_of(lambda v: isinstance(v, dict) and _is_text(v.get('type')), value),
    host=_is_text,
    backbone=_is_text,
    digests=_are_digests,
    roundings=lambda value: value is None or _are_roundings(value),
    base=lambda value: value is None or is_place(value),
    classes=lambda value: value is None or _list_of(_is_text, value),
    palette=lambda value: value is None or _list_of(_is_colour, value),
    version=_is_text,
    start=lambda value: value is None or _is_sum(value),
    heldout=lambda value: value is None or _is_sum(value),
    soup=lambda value: value is None or _list_of(_is_ingredient, value),
)
