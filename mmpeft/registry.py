"""mmpeft's node in mmengine's registries; mmengine imports this module when a config names ``mmpeft.X``."""

from importlib import import_module

from mmengine.registry import DATASETS as MMENGINE_DATASETS
from mmengine.registry import HOOKS as MMENGINE_HOOKS
from mmengine.registry import METRICS as MMENGINE_METRICS
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS as MMENGINE_OPTIM_WRAPPER_CONSTRUCTORS
from mmengine.registry import TRANSFORMS as MMENGINE_TRANSFORMS
from mmengine.registry import Registry

# Classes whose files need mmrotate, which users of the other classes may lack.
_ROTATED = {'STARDataset': 'mmpeft.mm.rotated.star'}


class _DatasetRegistry(Registry):
    """Imports the file of a rotated data set when a config names it, and not before."""

    def get(self, key: str) -> type | None:
        file = _ROTATED.get(key.removeprefix('mmpeft.'))
        if file is not None:
            import_module(file)
        return super().get(key)


def _child(parent: Registry, *locations: str) -> Registry:
    return Registry(parent.name, parent=parent, scope='mmpeft', locations=list(locations))


MODELS = _child(MMENGINE_MODELS, 'mmpeft.mm.backbone')
_HOOK_FILES = ('hooks', 'saving.adapter_hook', 'saving.checkpoint_hook', 'saving.resume_hook', 'soups.ingredient_hook')
HOOKS = _child(MMENGINE_HOOKS, *(f'mmpeft.mm.{name}' for name in _HOOK_FILES))
DATASETS = _DatasetRegistry(
    MMENGINE_DATASETS.name, parent=MMENGINE_DATASETS, scope='mmpeft', locations=['mmpeft.mm.running.digits']
)
METRICS = _child(MMENGINE_METRICS, 'mmpeft.mm.rotated.merged_dota')
OPTIM_WRAPPER_CONSTRUCTORS = _child(MMENGINE_OPTIM_WRAPPER_CONSTRUCTORS, 'mmpeft.mm.optim')
TRANSFORMS = _child(MMENGINE_TRANSFORMS, 'mmpeft.mm.soups.corruptions')
