"""What lies before the first trained place runs as in inference: no autograd, nothing kept."""

import gc
import re
import weakref

import pytest
import torch
from tiny import BACKBONES, MONA, image
from torch.autograd.graph import saved_tensors_hooks

import mmpeft

SSF = dict(type='SSF', sites=['norm2', 'fc1'])
LORA = dict(type='LoRA', rank=2)
METHODS = [
    *([dict(type=name)] for name in ('CVPT', 'BitFit', 'NormTuning', 'Partial', 'Adapter')),
    [MONA],
    [LORA],
    [dict(LORA, blocks=r'stages\.3'), MONA],
]
# DeiT III has no second norm.
MATRIX = [(host, [dict(SSF, sites=['fc1']) if host.endswith('DeiT3') else SSF]) for host in BACKBONES] + [
    ('mmdet Swin', methods) for methods in METHODS
]
# From the third stage on, or in the last of three layers.
LATE = r'^(stages\.[23]|layers\.2|timm_model\.model\.(blocks\.2|layers\.[23]))'


def adapted(host, *methods, eval_frozen=False, recompute_ffn=False, **options):
    """A backbone with drop path and trained places in its late blocks alone."""
    backbone = BACKBONES[host](drop_path_rate=0.2, **options)
    mmpeft.inject(backbone, [{'blocks': LATE, **method} for method in methods], recompute_ffn=recompute_ffn)
    mmpeft.freeze(backbone)
    backbone.eval_frozen = eval_frozen
    return backbone.train()


class Seen:
    """A forward pass: modules that autograd keeps something of, those with gradients, and their live outputs.

    Parameters, which are there anyway, do not count.
    """

    def __init__(self, backbone):
        self.running, self.keeping, self.tracked, self.outputs = [], [], [], []
        self.own = {parameter.data_ptr() for parameter in backbone.parameters()}
        for name, module in backbone.named_modules():
            module.register_forward_pre_hook(lambda module, args, name=name: self.running.append(name))
            module.register_forward_hook(lambda module, args, out: self.leave(out[0] if type(out) is tuple else out))
        with saved_tensors_hooks(self.keep, lambda tensor: tensor):
            self.result = backbone(image(40, 48))

    def keep(self, tensor):
        if tensor.data_ptr() not in self.own:
            self.keeping.append(self.running[-1])
        return tensor

    def leave(self, out):
        name = self.running.pop()
        if torch.is_tensor(out):
            self.outputs.append((name, weakref.ref(out)))
            self.tracked += [name] * out.requires_grad


def is_late(names):
    return re.match(LATE, names[0]) is not None


@pytest.mark.parametrize('host, methods', MATRIX, ids=str)
def test_nothing_before_the_first_trained_block_is_kept_or_tracked(host, methods):
    seen = Seen(adapted(host, *methods))
    assert is_late(seen.keeping) and is_late(seen.tracked)


@pytest.mark.parametrize(
    'options',
    [
        dict(with_cp=True),
        dict(recompute_ffn=True),
        dict(eval_frozen=True),
        dict(frozen_stages=1),
        dict(use_abs_pos_embed=True, pretrain_img_size=(40, 48)),
    ],
    ids=str,
)
def test_so_it_is_with_every_option_of_the_backbone(options):
    seen = Seen(adapted('mmdet Swin', MONA, **options))
    assert is_late(seen.tracked)
    # A checkpoint keeps its input where no hook sees it. That of the first trained block is needed.
    gc.collect()
    early = ('patch_embed', 'stages.0', 'stages.1.blocks')
    assert [name for name, out in seen.outputs if out() is not None and name.startswith(early)] == []
