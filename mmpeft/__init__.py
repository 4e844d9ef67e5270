"""Parameter-efficient fine-tuning of frozen Swin and ViT backbones for dense prediction."""

from mmpeft import hosts, methods
from mmpeft.adapter_file import (
    AdapterFileError,
    BaseNotFoundError,
    DamagedFileError,
    UnknownVersionError,
    WrongBaseError,
    WrongModelError,
)
from mmpeft.bank import AdapterBank
from mmpeft.checkpoint import load_adapters, save_adapters
from mmpeft.fingerprint import fingerprint
from mmpeft.freeze import count_parameters, freeze, is_adapter, trained_names
from mmpeft.hosts import register_host
from mmpeft.inject import inject
from mmpeft.merge import merge
from mmpeft.methods import register_method
from mmpeft.soups import SoupError, greedy_soup, learned_soup, recompute_batchnorm, uniform_soup, write_soup
from mmpeft.version import __version__ as __version__

__all__ = [
    'AdapterBank',
    'AdapterFileError',
    'BaseNotFoundError',
    'DamagedFileError',
    'SoupError',
    'UnknownVersionError',
    'WrongBaseError',
    'WrongModelError',
    'count_parameters',
    'fingerprint',
    'freeze',
    'greedy_soup',
    'hosts',
    'inject',
    'is_adapter',
    'learned_soup',
    'load_adapters',
    'merge',
    'methods',
    'recompute_batchnorm',
    'register_host',
    'register_method',
    'save_adapters',
    'trained_names',
    'uniform_soup',
    'write_soup',
]
