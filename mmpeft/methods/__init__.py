"""The adaptation methods: pure PyTorch, tensors in, tensors out."""

from mmpeft.methods.mona import Mona
from mmpeft.methods.tuning import Frozen

METHODS = {'Mona': Mona, 'Frozen': Frozen}

__all__ = ['METHODS', 'Frozen', 'Mona']
