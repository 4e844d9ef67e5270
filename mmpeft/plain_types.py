"""What checkpoints hold besides tensors and Python's own values, for torch's reader that runs no code."""

import numpy as np


def numpy_types() -> list:
    """NumPy's arrays and numbers, to be passed to ``torch.serialization.safe_globals``."""
    core = np._core.multiarray
    arrays = [
        (getattr(core, name), f'{module}.multiarray.{name}')
        for module in ('numpy.core', 'numpy._core')
        for name in ('_reconstruct', 'scalar')
    ]
    dtypes = {type(np.dtype(kind)) for kind in '?bBhHiIlLqQefdgFDSU'}
    return [np.ndarray, np.dtype, *arrays, *dtypes]
