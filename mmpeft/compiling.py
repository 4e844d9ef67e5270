"""Compiled parts of models: a kind of part is compiled once for a width and a mode, whatever block it stands in."""

import warnings
from collections.abc import Callable
from functools import cache
from inspect import signature
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn

# Compilers make a graph of its own for sizes of 0 and 1.
SPECIAL = 2
# How many rows there may be, for a compiler that is not to know.
GUESS = 8192
# What torch.compile is given.
BACKEND: str | Callable = 'inductor'

_functions: dict[tuple, Callable] = {}
_failed: set[tuple] = set()


def compiled(
    function: Callable[..., Tensor], module: nn.Module, x: Tensor, *rest: Any, numbers: tuple[int, ...] = ()
) -> Tensor | None:
    """What ``function(module, rows, *rest)`` makes of the rows of ``x``, by compiled code.

    The compiler is given a function of its own for each kind of part, width and mode, because it counts what it
    compiles by function, and gives up at some number. All models of a process use the same, copies included, for
    any number of rows.

    Args:
        function: Computes each row by itself, or knows by ``numbers`` which belong together.
        module: The part. What it computes may depend on its kind, width and mode, and on the values of its tensors.
        x: The tokens.
        rest: Parts of the module, and tensors whose sizes are those of the kind, in tuples too.
        numbers: What may differ from call to call beside the number of rows. Compilers take numbers that they are given
            for constants, so they go as sizes of a last tensor, from which ``numbers_in`` reads them.

    Returns:
        The result; None where the compiler failed, of which the first is warned of, and where it has no business:
        inside code that is compiled as a whole, with tensors that have no values, for a single row.

    Shape: ``(..., C) -> (..., D)``
    """
    kind = function, type(module)
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or type(x) is not Tensor or kind in _failed:
        return None
    # A part of a larger tensor may begin anywhere in it, or at 0, of which compilers make a graph of its own, too.
    apart = x.is_contiguous() and not x.storage_offset()
    rows = (x if apart else x.clone(memory_format=torch.contiguous_format)).flatten(0, -2)
    if len(rows) < SPECIAL:
        return None
    key = *kind, rows.shape[1], module.training, torch.is_grad_enabled(), rows.requires_grad, BACKEND
    if key not in _functions:
        own = _copy(function, f'{type(module).__name__}_{rows.shape[1]}')
        _functions[key] = torch.compile(own, fullgraph=True, backend=BACKEND)
    _mark_unknown(rows)
    if numbers:
        carrier = rows.new_empty(*(number + SPECIAL for number in numbers), 0)
        torch._dynamo.mark_dynamic(carrier, [*range(len(numbers))])
        rest = *rest, carrier
    try:
        return _functions[key](module, rows, *rest).unflatten(0, x.shape[:-1])
    except (torch._dynamo.exc.TorchDynamoException, torch._dynamo.exc.FailOnRecompileLimitHit) as error:
        _give_up(kind, error)
        return None


def numbers_in(carrier: Tensor) -> list[int]:
    """The numbers that ``compiled`` was given."""
    return [size - SPECIAL for size in carrier.shape[:-1]]


def _mark_unknown(rows: Tensor) -> None:
    """Let compilers know nothing of the number of rows, but that there may be some thousands of them.

    Of a number that they know they ask whether it is large, and make a graph for each answer; an older torch, which
    takes no guess in its place, still does so.
    """
    if _takes_guess():
        torch._dynamo.decorators.mark_unbacked(rows, 0, hint_override=GUESS)
    else:
        torch._dynamo.mark_dynamic(rows, 0)


@cache
def _takes_guess() -> bool:
    return 'hint_override' in signature(torch._dynamo.decorators.mark_unbacked).parameters


def _copy(function: FunctionType, name: str) -> FunctionType:
    """The same function under a name of its own, which is another one to the compiler."""
    name = f'{function.__name__}_{name}_{len(_functions)}'
    code = function.__code__.replace(co_name=name)
    return FunctionType(code, function.__globals__, name, function.__defaults__, function.__closure__)


def _give_up(kind: tuple, error: Exception) -> None:
    if not _failed:
        message = ' '.join(f'{type(error).__name__}: {error}'.split())[:300]
        warnings.warn(
            f'torch.compile failed. What it fails for runs without it; the first is {kind[1].__name__}: {message}',
            RuntimeWarning,
            stacklevel=3,
        )
    _failed.add(kind)
