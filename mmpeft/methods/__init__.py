"""The adaptation methods: pure PyTorch, tensors in, tensors out."""

from mmpeft.methods.mona import Mona
from mmpeft.methods.tuning import BitFit, Frozen, Full, NormTuning, Partial, Tuning

METHODS = {cls.__name__: cls for cls in (Mona, BitFit, NormTuning, Partial, Full, Frozen)}

__all__ = ['METHODS', 'Tuning', *METHODS]
