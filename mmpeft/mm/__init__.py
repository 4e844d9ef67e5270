"""Everything that touches OpenMMLab: builders, hooks, the optimizer constructor, data sets, and how tools run."""

from mmpeft.torchvision_ops import mend_torchvision

mend_torchvision()

from mmengine.config.utils import MODULE2PACKAGE  # noqa: E402

import mmpeft.mm.weights.loading  # noqa: E402, F401  registers the loader of safetensors files
import mmpeft.mm.weights.timm_weights  # noqa: E402, F401  registers the loader of timm's files

# Configs may inherit from our recipes, as from OpenMMLab's: _base_ = 'mmpeft::recipes/mona_swin_coco.py'.
MODULE2PACKAGE['mmpeft'] = 'mmpeft'
