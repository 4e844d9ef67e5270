"""What several processes do together: none waits for one that failed."""

from collections.abc import Callable
from typing import TypeVar

from mmengine.dist import all_gather_object

from mmpeft.mm.checks import UserError

T = TypeVar('T')


def in_all(step: Callable[[], T]) -> T:
    """Take a step that may fail in one process: it has succeeded in all of them, or all of them raise.

    Every process must come here; a step is over when the last one has taken it.

    Raises:
        Exception: What ``step`` raised in this process.
        UserError: It failed in another one, with that one's message.
    """
    result = failure = None
    try:
        result = step()
    except Exception as error:
        failure = error
    failures = all_gather_object(None if failure is None else str(failure) or repr(failure))
    if failure is not None:
        raise failure
    told = next((text for text in failures if text is not None), None)
    if told is not None:
        raise UserError(told)
    return result
