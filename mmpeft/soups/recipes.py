"""Uniform and greedy soups."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from mmpeft.soups.ingredients import Ingredient, SoupError, open_ingredients
from mmpeft.soups.mixing import mixer, warn_of_statistics

State = dict[str, Tensor]


@dataclass(frozen=True)
class Step:
    """What a greedy soup did with one candidate: its own score, that of the soup with it, and whether it stays."""

    path: str
    score: float
    soup_score: float
    accepted: bool


@dataclass(frozen=True)
class Soup:
    """A greedy soup: its state dict and score, its files in the order of their acceptance, and how it came about."""

    state_dict: State
    score: float
    ingredients: list[str]
    steps: list[Step]


def uniform_soup(
    files: Iterable[str | Path],
    *,
    insist: bool = False,
    lora: str = 'factors',
    finish: Callable[[State], State] | None = None,
) -> State:
    """The mean of the tensors of all files.

    The paper averages models that were fine-tuned as a whole; soups of adapters are our extension. Also the mean of
    the last checkpoints of one run, with ``insist``.

    Args:
        files: Adapter files, or ``.pth`` checkpoints of whole models, of runs from one start.
        insist: Mix files that differ in their start, their held-out images or their classes, or do not name them.
        lora: 'factors' averages the factors of LoRA as they are, 'delta' their products: the result has a rank as
            many times as high as there are files, and ``write_soup`` says so in its file.
        finish: What is done to the mean, such as giving its BatchNorm layers statistics of their own, which are
            averaged otherwise.

    Raises:
        SoupError: The files do not mix, with the first difference.
        AdapterFileError: A file is missing or damaged.

    Source: Wortsman et al. 2022, arXiv:2203.05482.
    """
    mix = mixer(lora)
    ingredients = open_ingredients(files, insist)
    if finish is None:
        warn_of_statistics(ingredients)
    state = mix(ingredients)
    return finish(state) if finish else state


def greedy_soup(
    files: Iterable[str | Path],
    score: Callable[[State], float],
    *,
    scores: Mapping[str | Path, float] | None = None,
    strict: bool = False,
    finish: Callable[[State], State] | None = None,
    insist: bool = False,
    lora: str = 'factors',
) -> Soup:
    """The mean of those files that do not make the held-out score worse, tried in turn from the best one on.

    On the held-out set it is never worse than the best file. Of equal files the one named first comes first.

    Args:
        files: Adapter files, or ``.pth`` checkpoints of whole models, of runs from one start; each is used once.
        score: ``score(state_dict)`` on the held-out images, higher is better.
        scores: Scores that are known already, by file; the others are computed.
        strict: Accept a file only if the score rises, as the authors' code does; by default also if it stays, as in
            their paper.
        finish: What is done to each mix before it is scored, and kept, such as giving its BatchNorm layers statistics
            of their own. A single file stays as it is.
        insist: Mix files that differ in their start, their held-out images or their classes, or do not name them.
        lora: As in ``uniform_soup``; with 'delta' a mix that is scored has the rank of its files together.

    Raises:
        SoupError: The files do not mix, one is named twice, or a score is not a number.
        AdapterFileError: A file is missing or damaged.

    Source: Wortsman et al. 2022, arXiv:2203.05482, recipe 1.
    """
    mix = mixer(lora)
    ingredients = open_ingredients(files, insist)
    _check_once(ingredients)
    if finish is None:
        warn_of_statistics(ingredients)
    known = {str(path): value for path, value in (scores or {}).items()}
    alone = {i.path: _number(known[i.path] if i.path in known else score(mix([i])), i.path) for i in ingredients}
    first, *others = sorted(ingredients, key=lambda ingredient: -alone[ingredient.path])
    soup, state, best = [first], mix([first]), alone[first.path]
    steps = [Step(first.path, best, best, True)]
    for candidate in others:
        tried = mix([*soup, candidate])
        tried = finish(tried) if finish else tried
        value = _number(score(tried), f'the soup with {candidate.path}')
        accepted = value > best if strict else value >= best
        steps.append(Step(candidate.path, alone[candidate.path], value, accepted))
        if accepted:
            soup, state, best = [*soup, candidate], tried, value
    return Soup(state, best, [ingredient.path for ingredient in soup], steps)


def _check_once(ingredients: list[Ingredient]) -> None:
    paths = [ingredient.path for ingredient in ingredients]
    twice = next((path for path in paths if paths.count(path) > 1), None)
    if twice is not None:
        raise SoupError(f'{twice} is named twice; a greedy soup uses each file once.')


def _number(score: float, what: str) -> float:
    if math.isnan(score):
        raise SoupError(f'The score of {what} is not a number; leave it out, or look at what scores it.')
    return float(score)
