"""Ingredients of a soup: files of runs from one start, opened and compared before anything is mixed."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mmpeft.contents import differences_of
from mmpeft.opened_file import AdapterFile, in_order, read_adapters
from mmpeft.reading import UnreadableError, read_as_data

# Counts of BatchNorm, in which runs of different length differ and which nothing reads in a trained model.
COUNTERS = 'num_batches_tracked'
# What is said of a run and not of its tensors; `insist` mixes files that differ in it.
OF_THE_RUN = ('classes', 'start', 'heldout')
INSIST = 'insist (insist=True, or --insist of the tool)'


class SoupError(ValueError):
    """Files cannot be mixed, or a recipe cannot go on; no file and no model was changed."""


@dataclass(frozen=True)
class Ingredient:
    """A file whose tensors are mapped into memory, and read when they are used.

    Attributes:
        path: The file as it was named.
        tensors: Its state dict.
        file: The adapter file that it is, or None for a checkpoint of a whole model.
        meta: What a checkpoint says of itself.
    """

    path: str
    tensors: Mapping[str, Tensor]
    file: AdapterFile | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)

    @property
    def facts(self) -> dict[str, Any]:
        """What must be the same in all ingredients."""
        shapes = {name: _kind(tensor) for name, tensor in self.tensors.items()}
        if self.file is None:
            task, run = _dict(self.meta.get('dataset_meta')), _dict(self.meta.get('mmpeft'))
            classes = task.get('classes')
            return dict(
                kind='checkpoint',
                tensors=shapes,
                classes=classes and list(classes),
                start=run.get('start'),
                heldout=run.get('heldout'),
            )
        info = self.file.info
        return dict(
            kind='adapter file',
            host=info.host,
            backbone=info.backbone,
            methods=[{'type': method['type'], **method} for method in in_order(info.methods)],
            base=info.digests,
            tensors=shapes,
            classes=info.classes,
            start=info.start,
            heldout=info.heldout,
        )

    def check_model(self, model: nn.Module) -> None:
        """Refuse a model that the file is not of.

        Raises:
            ValueError: With what the file holds and what the model expects.
        """
        if self.file is not None:
            self.file.check_model(model)
            return
        differences = differences_of(self.tensors, model.state_dict())
        if differences:
            raise SoupError(f'{self.path} is of another model than this one: it {", and ".join(differences)}.')


def open_ingredients(files: Iterable[str | Path], insist: bool = False) -> list[Ingredient]:
    """Open files and refuse those that do not mix.

    Args:
        files: Adapter files, or ``.pth`` checkpoints of whole models.
        insist: Take files that differ in their start, their held-out images or their classes, or do not name them.

    Raises:
        SoupError: The first difference between two files, with both values, or a file of a run that diverged.
        AdapterFileError: An adapter file is missing or damaged.
    """
    ingredients = [_open(path) for path in files]
    if not ingredients:
        raise SoupError('A soup needs at least one file, got none.')
    first, facts = ingredients[0], ingredients[0].facts
    for other in ingredients:
        _compare(first.path, facts, other.path, other.facts, insist)
        _check_numbers(other)
        for name, tensor in first.tensors.items():
            if not tensor.is_floating_point() and not name.endswith(COUNTERS):
                _compare_values(name, first, other)
    return ingredients


def differs(name: str, ingredients: list[Ingredient]) -> bool:
    """Whether the tensor of this name is not the same in all ingredients."""
    first = ingredients[0].tensors[name]
    return any(not torch.equal(first, other.tensors[name]) for other in ingredients[1:])


def _open(path: str | Path) -> Ingredient:
    place = Path(path).expanduser()
    if place.suffix == '.safetensors':
        file = read_adapters(place, mapped=True)
        return Ingredient(str(path), file.tensors, file)
    try:
        checkpoint = read_as_data(place, also=LOGS, mapped=True)
    except UnreadableError as error:
        raise SoupError(str(error)) from error
    state = checkpoint.get('state_dict', checkpoint) if isinstance(checkpoint, dict) else None
    if not isinstance(state, dict) or not all(map(torch.is_tensor, state.values())) or not state:
        raise SoupError(f'{path} is no checkpoint: it holds no state dict.')
    return Ingredient(str(path), state, meta=_dict(checkpoint.get('meta')))


class _Unread:
    """Stands in for the logs of mmengine in a checkpoint, which no soup looks at."""

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, _: Any) -> None:
        pass


LOGS = ((_Unread, 'mmengine.logging.history_buffer.HistoryBuffer'), (_Unread, 'builtins.getattr'))


def _dict(value: Any) -> dict:
    return value if isinstance(value, dict) else {}


def _kind(tensor: Tensor) -> str:
    """What tensors of one name must share; floating ones may differ in their dtype."""
    return f'{"floating" if tensor.is_floating_point() else tensor.dtype} {tuple(tensor.shape)}'


def _compare(path: str, facts: dict, other_path: str, other_facts: dict, insist: bool) -> None:
    """Refuse the other file with its first difference from the one at ``path``."""
    for fact in facts:
        of_run = fact in OF_THE_RUN
        if of_run and insist:
            continue
        if fact in ('start', 'heldout') and other_facts[fact] is None:
            missing = 'which start file it was trained from' if fact == 'start' else 'which images were held out of it'
            raise SoupError(f'{other_path} does not say {missing}: train it by a sweep, or {INSIST}.')
        one, two = dict(_leaves(fact, facts[fact])), dict(_leaves(fact, other_facts.get(fact)))
        for name in [*one, *two]:
            if one.get(name) != two.get(name):
                hint = f' To mix them all the same, {INSIST}.' if of_run else ''
                raise SoupError(
                    f'{path} and {other_path} do not mix: {name} is {one.get(name)!r:.80} in the one and '
                    f'{two.get(name)!r:.80} in the other.{hint}'
                )


def _leaves(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """The values inside lists and dicts, by names that say where they stand."""
    if not isinstance(value, dict | list):
        yield name, value
        return
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        yield from _leaves(f'{name}.{key}', inner)


def _check_numbers(ingredient: Ingredient) -> None:
    for name, tensor in ingredient.tensors.items():
        if tensor.isnan().any():
            raise SoupError(f'{ingredient.path} holds NaN in {name}: its run diverged. Leave it out.')


def _compare_values(name: str, first: Ingredient, other: Ingredient) -> None:
    if differs(name, [first, other]):
        raise SoupError(
            f'{first.path} and {other.path} do not mix: {name}, of {first.tensors[name].dtype}, has other values in '
            'the one than in the other, and only floating tensors are averaged.'
        )
