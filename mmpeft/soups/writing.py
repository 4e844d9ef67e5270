"""Write a soup as a file of the kind that its ingredients are."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from mmpeft.adapter_file import AdapterInfo, write_file
from mmpeft.files import write_atomically
from mmpeft.soups.ingredients import Ingredient, SoupError, open_ingredients
from mmpeft.soups.mixing import FACTORS, rank_of

# What inference and later training ask of a checkpoint; the rest is of the run that wrote it.
META = ('cfg', 'dataset_meta', 'mmengine_version')


def write_soup(
    path: str | Path,
    state_dict: Mapping[str, Tensor],
    files: Iterable[str | Path],
    *,
    scores: Mapping[str | Path, float] | None = None,
) -> None:
    """Write ``state_dict`` as an adapter file, or as a ``.pth`` checkpoint if its ingredients are such.

    It loads as each of them does. What all ingredients say of themselves is said of it too, and which they are.

    Args:
        path: The file to write.
        state_dict: A soup of ``files``.
        files: The ingredients that are in it.
        scores: The held-out scores of ingredients, by file.

    Raises:
        FileExistsError: The file exists.
        SoupError: The file has another ending than the ingredients.
    """
    place = Path(path).expanduser()
    ingredients = open_ingredients(files, insist=True)
    first = ingredients[0]
    check_ending(place, first)
    if place.exists():
        raise FileExistsError(f'{path} exists; name another place, nothing is overwritten.')
    known = {str(file): float(score) for file, score in (scores or {}).items()}
    recipe = [[Path(ingredient.path).name, known.get(ingredient.path)] for ingredient in ingredients]
    run = dict(start=_common('start', ingredients), heldout=_common('heldout', ingredients), soup=recipe)
    if first.file is None:
        meta = {key: first.meta[key] for key in META if key in first.meta} | dict(mmpeft=run)
        content = dict(meta=meta, state_dict=dict(state_dict))
        write_atomically(place, lambda file: torch.save(content, file))
    else:
        methods = _methods(first.file.info, first.tensors, state_dict)
        write_file(place, replace(first.file.info, methods=methods, **run), state_dict)


def check_ending(path: Path, ingredient: Ingredient) -> None:
    """Refuse a place for a soup whose ending is not that of its ingredients, of which one is given.

    Raises:
        SoupError: It is another one.
    """
    ending = '.pth' if ingredient.file is None else '.safetensors'
    if path.suffix != ending:
        raise SoupError(f'A soup of files such as {ingredient.path} ends in {ending}, got {path}.')


def _common(fact: str, ingredients: list[Ingredient]) -> str | None:
    """What all ingredients say, or None."""
    values = {ingredient.facts[fact] for ingredient in ingredients}
    return values.pop() if len(values) == 1 else None


def _methods(info: AdapterInfo, tensors: Mapping[str, Tensor], mixed: Mapping[str, Tensor]) -> list[dict]:
    """The methods of the file; the rank of LoRA is higher if its deltas were averaged."""
    name = next((name for name in tensors if name.endswith(FACTORS)), None)
    times = 1 if name is None else rank_of(name, mixed) // rank_of(name, tensors)
    return [{**m, 'rank': m['rank'] * times} if m['type'] == 'LoRA' else m for m in info.methods]
