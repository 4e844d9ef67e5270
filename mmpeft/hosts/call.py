"""What is known of one forward of a backbone beside its tokens, and how it reaches the blocks."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor, nn


@dataclass(eq=False)
class Call:
    """What is known of one forward of a backbone beside the tokens.

    Stock backbones call ``block(x)``, so the blocks take it from the thread in which they run. They do so before they
    enter a checkpoint, which may compute in another thread, and hand it on as an argument from there: to their sites,
    and to adapters that read ``'call'``.

    Attributes:
        hw_shape: Height and width of the grid of patch tokens; None until the patch embedding has told it.
        extra_tokens: How many tokens stand before those of the grid: class and register tokens.
        prompts: Sets of tokens (B, P, C) that one block hands to the next beside the stream.
        together: What adapters made of their parameters together in this forward.
        casts: Frozen weights in the dtype of autocast, by the ``id`` of the parameter.
        given: What the stock backbone gave to the block beside the tokens, by name: tables, masks, rotations.
    """

    hw_shape: tuple[int, int] | None = None
    extra_tokens: int = 0
    prompts: tuple[Tensor, ...] = ()
    together: Mapping[nn.Module, Any] = field(default_factory=dict)
    casts: Mapping[int, Tensor] = field(default_factory=dict)
    given: Mapping[str, Any] = field(default_factory=dict)

    def on_grid(self, hw_shape: tuple[int, int]) -> 'Call':
        """The same call, for a block that is told the grid of its own tokens."""
        return replace(self, hw_shape=hw_shape)

    def cast(self, parameter: Tensor | None) -> Tensor | None:
        """A frozen weight as autocast would have it, if it is there; autocast itself would make a copy each time."""
        return self.casts.get(id(parameter), parameter) if self.casts else parameter

    def with_given(self, **given: Any) -> 'Call':
        """The same call, for a block that the stock backbone gives more than the tokens."""
        return replace(self, given=given)

    def check_tokens(self, x: Tensor) -> None:
        """Refuse tokens that are not those of the grid.

        Shape: ``(B, N, C)``
        """
        height, width = self.hw_shape or (0, 0)
        if self.hw_shape is None or x.shape[1] != self.extra_tokens + height * width:
            raise ValueError(
                f'Got {x.shape[1]} tokens; the patch embedding told of {self.extra_tokens} and a grid of '
                f'{self.hw_shape}. A block alone knows no grid: call the backbone.'
            )


class _Thread(threading.local):
    """The call that this thread computes. A context variable would do the same, and compilers cannot trace one."""

    call: Call | None = None


_THREAD = _Thread()


@contextmanager
def opened(call: Call) -> Iterator[Call]:
    """Make ``call`` the one that the blocks of this thread find while it lasts."""
    before, _THREAD.call = _THREAD.call, call
    try:
        yield call
    finally:
        _THREAD.call = before


def current_call() -> Call:
    """The call that this thread computes; for a block that is called by itself a new one, in which nothing is known."""
    return Call() if _THREAD.call is None else _THREAD.call
