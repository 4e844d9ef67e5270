"""The attention of mmsegmentation's ViT over frozen weights."""

import copy

import torch
from tiny import image, mmseg_vit
from torch import nn

import mmpeft
from mmpeft.costs import saved_bytes
from mmpeft.plain import use_plain_forms


def with_ssf() -> tuple[nn.Module, nn.Module]:
    """SSF inside the attention, as here and as published."""
    ours = mmseg_vit()
    mmpeft.inject(ours, dict(type='SSF', sites=['qkv', 'proj']))
    mmpeft.freeze(ours)
    plain = copy.deepcopy(ours)
    use_plain_forms(plain)
    return ours, plain


def test_ssf_inside_the_attention_equals_its_plain_form_in_values_and_gradients():
    x, found = image(64, 64), []
    for model in with_ssf():
        out = model(x)[-1]
        wanted = [parameter for parameter in model.parameters() if parameter.requires_grad]
        found.append((out, *torch.autograd.grad(out.square().sum(), wanted)))
    for ours, plain in zip(*found, strict=True):
        assert (ours - plain).norm() < 1e-5 * plain.norm()


def test_ssf_inside_the_attention_keeps_its_result_alone():
    ours, plain = (saved_bytes(model, lambda model=model: model(image(64, 64))) for model in with_ssf())
    tokens, width, blocks = 2 * 65, 4 * 16, 3
    # The plain form keeps queries, keys and values before the scale, too.
    assert plain - ours > 0.9 * blocks * 3 * tokens * width


def test_the_stream_stays_as_it_lies_in_memory():
    model = mmseg_vit()
    mmpeft.inject(model, dict(type='CVPT'))
    mmpeft.freeze(model)
    seen = []
    for block in model.layers:
        block.ln2.register_forward_hook(lambda _, args, out: seen.append(args[0].is_contiguous()))
    model(image())
    assert seen == [True] * 3
