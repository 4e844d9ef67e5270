"""mmpeft's node in mmengine's registries; mmengine imports this module when a config names ``mmpeft.X``."""

from mmengine.registry import DATASETS as MMENGINE_DATASETS
from mmengine.registry import HOOKS as MMENGINE_HOOKS
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS as MMENGINE_OPTIM_WRAPPER_CONSTRUCTORS
from mmengine.registry import Registry


def _child(parent: Registry, *locations: str) -> Registry:
    return Registry(parent.name, parent=parent, scope='mmpeft', locations=list(locations))


MODELS = _child(MMENGINE_MODELS, 'mmpeft.mm.backbone')
_HOOK_FILES = ('hooks', 'adapter_hook', 'checkpoint_hook', 'resume_hook')
HOOKS = _child(MMENGINE_HOOKS, *(f'mmpeft.mm.{name}' for name in _HOOK_FILES))
DATASETS = _child(MMENGINE_DATASETS, 'mmpeft.mm.datasets')
OPTIM_WRAPPER_CONSTRUCTORS = _child(MMENGINE_OPTIM_WRAPPER_CONSTRUCTORS, 'mmpeft.mm.optim')
