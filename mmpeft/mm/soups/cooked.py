"""What became of a soup: its weights, its score, and how it came about."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from mmpeft.soups import Step

State = dict[str, Tensor]


@dataclass(frozen=True)
class Mixed:
    """A soup.

    Attributes:
        state_dict: Its weights.
        score: Its score; None if nothing was scored.
        ingredients: The files in it.
        steps: For each candidate its score, that of the soup with it, and whether it stays.
        shares: Of a learned soup how much of each candidate is in each group of tensors.
        inverse_temperature: What the logits were multiplied by while it was learned; the soup itself has none.
    """

    state_dict: State
    score: float | None
    ingredients: Sequence[str]
    steps: Sequence[Step]
    shares: Mapping[str, Sequence[float]] | None = None
    inverse_temperature: float = 1


@dataclass(frozen=True)
class Cooked:
    """A soup that was written: by which recipe, what it is, the name of its score, and the files that were written."""

    recipe: str
    soup: Mixed
    metric: str | None
    files: Sequence[Path]

    def __str__(self) -> str:
        score = '' if self.soup.score is None else f', {self.metric} {self.soup.score:.4f}'
        count = f'{len(self.soup.ingredients)} of {len(self.soup.steps) or len(self.soup.ingredients)}'
        return f'{self.recipe} soup of {count} files{score}'
