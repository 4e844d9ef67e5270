"""The adaptation methods: pure PyTorch, tensors in, tensors out."""

from mmpeft.methods.bottleneck import Adapter, AdaptFormer, LoRand
from mmpeft.methods.cvpt import CVPT
from mmpeft.methods.lora import LoRA
from mmpeft.methods.mona import Mona
from mmpeft.methods.ssf import SSF
from mmpeft.methods.tuning import BitFit, Frozen, Full, NormTuning, Partial, Tuning
from mmpeft.methods.vpt import VPT

METHODS = {
    cls.__name__: cls
    for cls in (Mona, SSF, CVPT, VPT, LoRA, Adapter, AdaptFormer, LoRand, BitFit, NormTuning, Partial, Full, Frozen)
}

__all__ = ['METHODS', 'Tuning', *METHODS]
