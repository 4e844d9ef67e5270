"""Everything that touches OpenMMLab: builders, hooks, the optimizer constructor, data sets, and how tools run."""

from mmpeft.torchvision_ops import mend_torchvision

mend_torchvision()

import mmpeft.mm.weights.loading  # noqa: E402, F401  registers the loader of safetensors files
import mmpeft.mm.weights.timm_weights  # noqa: E402, F401  registers the loader of timm's files
