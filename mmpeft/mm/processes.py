"""Several processes: what fails in one of them fails in all, so that none waits for another that is gone."""

from collections.abc import Iterator
from contextlib import contextmanager

from mmengine.dist import all_gather_object


@contextmanager
def failing_together() -> Iterator[None]:
    """Wait for all processes at the end of a block, and raise in each what was raised in any.

    The block itself must not wait for other processes: those in which it failed would never come.

    Raises:
        RuntimeError: The block failed in another process; it says how.
    """
    own = None
    try:
        yield
    except Exception as error:
        own = error
    errors = all_gather_object(None if own is None else f'{type(own).__name__}: {own}')
    if own is not None:
        raise own
    for rank, error in enumerate(errors):
        if error is not None:
            raise RuntimeError(f'Process {rank} failed, and the others end with it. {error}')
