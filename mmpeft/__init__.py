"""Parameter-efficient fine-tuning of frozen Swin backbones for dense prediction."""

from mmpeft import methods
from mmpeft.freeze import count_parameters, freeze, is_adapter, trained_names
from mmpeft.inject import inject
from mmpeft.merge import merge

__version__ = '0.1.0'
__all__ = [
    'count_parameters',
    'freeze',
    'inject',
    'is_adapter',
    'merge',
    'methods',
    'trained_names',
]
