"""Look at a config before anything is built from it, and say in one line what is wrong."""

from mmpeft.mm.checks.data import check_data, check_files, check_parts
from mmpeft.mm.checks.errors import UserError
from mmpeft.mm.checks.machine import check_device, check_free, check_work_dir
from mmpeft.mm.checks.reading import evaluators, leaves, read_config, register_library, type_name
from mmpeft.mm.checks.values import check_values

__all__ = [
    'UserError',
    'check_data',
    'check_device',
    'check_files',
    'check_free',
    'check_parts',
    'check_values',
    'check_work_dir',
    'evaluators',
    'leaves',
    'read_config',
    'register_library',
    'type_name',
]
