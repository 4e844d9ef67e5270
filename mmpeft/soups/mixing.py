"""Average the tensors of ingredients, in fp64."""

import warnings
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from mmpeft.soups.ingredients import Ingredient, SoupError, differs

FACTORS = ('.lora_A', '.lora_B')
STATISTICS = ('running_mean', 'running_var')


def mix(ingredients: list[Ingredient], shares: Mapping[str, Sequence[float]] | None = None) -> dict[str, Tensor]:
    """The weighted mean of the ingredients; by default the plain one.

    Floating tensors are averaged in fp64 and come in the first ingredient's dtype, others are the first's. What is the
    same in all ingredients stays so to the bit. Factors
    whose product acts (those of Mona, Adapter and LoRA) are averaged as they are, one by one.

    Args:
        ingredients: What is mixed.
        shares: For names of tensors how much of each ingredient goes in; they sum to 1. Names that are not in it get
            equal shares.
    """
    equal = [1 / len(ingredients)] * len(ingredients)
    return {
        name: mix_tensor(name, ingredients, (shares or {}).get(name, equal))
        if tensor.is_floating_point() and differs(name, ingredients)
        else tensor.clone()
        for name, tensor in ingredients[0].tensors.items()
    }


def mixer(lora: str) -> Callable[[list[Ingredient]], dict[str, Tensor]]:
    """What takes the plain mean of ingredients, with the 'factors' of LoRA averaged or its 'delta'.

    Raises:
        ValueError: ``lora`` is neither.
    """
    if lora not in ('factors', 'delta'):
        raise ValueError(f"lora is 'factors' or 'delta', got {lora!r}.")
    return mix if lora == 'factors' else mix_deltas


def mix_tensor(name: str, ingredients: list[Ingredient], shares: Sequence[float]) -> Tensor:
    """The weighted mean of one floating tensor."""
    first = ingredients[0].tensors[name]
    start = first.double()
    total = start.clone()
    for ingredient, share in zip(ingredients[1:], shares[1:], strict=True):
        total.add_(ingredient.tensors[name].to(torch.float64, copy=True).sub_(start), alpha=share)
    return total.to(first.dtype)


def mix_deltas(ingredients: list[Ingredient]) -> dict[str, Tensor]:
    """The mean of the ingredients in which the changes ``B A`` of LoRA, not their factors, are averaged.

    Exactly so: the factors of all k ingredients stand side by side. The rank is k times as high, alpha stays, and
    ``alpha / (k rank)`` is the mean's ``1 / k``.

    Raises:
        SoupError: There is no LoRA in the ingredients.
    """
    factors = [name for name in ingredients[0].tensors if name.endswith(FACTORS)]
    if not factors:
        raise SoupError(f'{ingredients[0].path} holds no LoRA, whose deltas could be averaged.')
    return mix(ingredients) | {name: _side_by_side(name, ingredients) for name in factors}


def _side_by_side(name: str, ingredients: list[Ingredient]) -> Tensor:
    tensors = [ingredient.tensors[name] for ingredient in ingredients]
    if name.endswith('.lora_B'):
        return torch.cat(tensors, dim=1).to(tensors[0].dtype)
    rank = rank_of(name, ingredients[0].tensors)
    targets = zip(*(tensor.split(rank) for tensor in tensors), strict=True)
    return torch.cat([part for target in targets for part in target]).to(tensors[0].dtype)


def rank_of(name: str, tensors: Mapping[str, Tensor]) -> int:
    """The rank of the LoRA that has a factor of this name; several targets stand below one another in its A."""
    return tensors[f'{name[:-1]}B'].shape[1]


def warn_of_statistics(ingredients: list[Ingredient]) -> None:
    """Warn if running statistics of BatchNorm are averaged that belong to no mix."""
    names = [name for name in ingredients[0].tensors if name.endswith(STATISTICS) and differs(name, ingredients)]
    if names:
        warnings.warn(
            f'{len(names)} running statistics of BatchNorm are averaged, such as {names[0]}; those of the mix are '
            'others. Recompute them with finish= and mmpeft.recompute_batchnorm.',
            stacklevel=3,
        )
