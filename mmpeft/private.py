"""Names of torch that are not public and have no public counterpart, in one place.

tests/test_private.py says which of them is gone. ``import mmpeft`` leaves this file out.
"""

import torch
from torch._subclasses import FakeTensorMode as FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode as TorchDispatchMode
from torch.utils._pytree import tree_leaves as tree_leaves
from torch.utils.flop_counter import sdpa_flop_count as sdpa_flop_count

# The attention that CPUs have.
CPU_ATTENTION = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
