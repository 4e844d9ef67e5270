"""Everything that touches OpenMMLab: builders, hooks, the optimizer constructor, data sets, and how tools run."""

from mmpeft.torchvision_ops import mend_torchvision

mend_torchvision()

import mmpeft.mm.loading  # noqa: E402, F401  registers the loader of safetensors files
import mmpeft.mm.timm_weights  # noqa: E402, F401  registers the loader of timm's files
