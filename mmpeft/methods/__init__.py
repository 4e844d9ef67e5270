"""The adaptation methods: pure PyTorch, tensors in, tensors out. ``method.py`` says what a method is."""

from mmpeft.methods.bottleneck import Adapter, AdaptFormer, LoRand
from mmpeft.methods.cvpt import CVPT
from mmpeft.methods.lora import LoRA
from mmpeft.methods.method import Method, Place, Tuning
from mmpeft.methods.mona import Mona
from mmpeft.methods.registration import METHODS, register_method
from mmpeft.methods.ssf import SSF
from mmpeft.methods.tuning import BitFit, Frozen, Full, NormTuning, Partial
from mmpeft.methods.vpt import VPT

OWN = (Mona, SSF, CVPT, VPT, LoRA, Adapter, AdaptFormer, LoRand, BitFit, NormTuning, Partial, Full, Frozen)
for _method in OWN:
    register_method(_method)

__all__ = ['METHODS', 'Method', 'Place', 'Tuning', 'register_method', *(cls.__name__ for cls in OWN)]
