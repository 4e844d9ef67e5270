"""Which form of a computation runs where there are two: that for CPUs, or that for GPUs.

A CPU is kept waiting by arithmetic and passes over memory, a GPU by the number of operations and by looks at values.
Both forms compute the same. ``MMPEFT_FORM=cpu`` or ``gpu`` in the environment chooses one for every device.
"""

import os

from torch import Tensor

VARIABLE = 'MMPEFT_FORM'


def for_cpu(tensor: Tensor) -> bool:
    """Whether what is computed from ``tensor`` takes the form for CPUs.

    Raises:
        ValueError: The environment names another form.
    """
    form = os.environ.get(VARIABLE) or ('cpu' if tensor.device.type == 'cpu' else 'gpu')
    if form not in ('cpu', 'gpu'):
        raise ValueError(f'{VARIABLE} is cpu or gpu, got {form!r}.')
    return form == 'cpu'
