"""Swin V2: norms after attention and feed-forward, scores by the cosine."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from tiny import MONA, image, swin_v2

import mmpeft
from mmpeft.costs import saved_bytes
from mmpeft.plain import use_plain_forms

SITES = ['before_attn', 'attn_branch', 'after_attn', 'ffn_input', 'ffn_branch', 'after_ffn']


def frozen(backbone, method):
    mmpeft.inject(backbone, method)
    mmpeft.freeze(backbone)
    return backbone


@pytest.mark.parametrize('size', [(30, 44), (48, 96), (12, 40)])
def test_frozen_attention_computes_what_the_stock_module_does(size):
    ours = frozen(swin_v2(), dict(type='SSF', sites=['proj'])).double()
    plain = copy.deepcopy(ours)
    use_plain_forms(plain)
    x, found = image(*size).double().requires_grad_(), []
    for model in (ours, plain):
        outs = model(x)
        wanted = [x, *(p for p in model.parameters() if p.requires_grad)]
        found.append([*outs, *torch.autograd.grad(sum(out.sin().sum() for out in outs), wanted)])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)


def test_frozen_attention_keeps_less_than_the_stock_module():
    ours = frozen(swin_v2(), MONA)
    plain = copy.deepcopy(ours)
    use_plain_forms(plain)
    assert saved_bytes(ours, lambda: ours(image(96, 96))) < 0.9 * saved_bytes(plain, lambda: plain(image(96, 96)))


def test_sites_are_where_they_are_in_swin():
    backbone = frozen(swin_v2(), dict(type='Adapter', bottleneck=4, sites=SITES)).eval()
    block, seen = backbone.stages[1].blocks[1], {}
    for site, adapter in block.adapters.items():
        adapter.register_forward_hook(lambda _, args, out, site=site: seen.update({site: (args[0], out)}))
    block.register_forward_hook(lambda _, args, out: seen.update(block=(args[0], out)))
    backbone(image(48, 48))

    def close(site, expected):
        torch.testing.assert_close(seen[site][0], expected)
        return seen[site][1]

    x = close('before_attn', seen['block'][0])
    x = x + close('attn_branch', block.norm1(block.attn(x, (6, 6))))
    x = close('after_attn', x)
    x = x + close('ffn_branch', block.norm2(block.ffn(close('ffn_input', x))))
    torch.testing.assert_close(block.norm3(close('after_ffn', x)), seen['block'][1])


@pytest.mark.parametrize('logit_scale', [0.5, 9.0])
def test_the_scores_of_cvpt_are_cosines_times_the_scale_of_the_attention_up_to_its_limit(logit_scale):
    backbone = frozen(swin_v2(), dict(type='CVPT', num_prompts=3, dropout=0.0, place='beside_attn')).eval()
    block = backbone.stages[2].blocks[0]
    msa, x = block.attn.w_msa, torch.randn(2, 9, 32)
    msa.logit_scale.data.fill_(logit_scale)
    adapter = block.adapters['beside_attn']
    q, k, v = msa.qkv.weight.chunk(3)

    def heads(tokens):
        return tokens.unflatten(-1, (msa.num_heads, -1)).transpose(-3, -2)

    queries, keys = heads(F.linear(x, q, msa.q_bias)), heads(F.linear(adapter.prompts, k))
    cosines = F.cosine_similarity(queries.unsqueeze(-2), keys.unsqueeze(-3), dim=-1)
    scores = (cosines * min(math.exp(logit_scale), 100)).softmax(-1)
    read = (scores @ heads(F.linear(adapter.prompts, v, msa.v_bias))).transpose(1, 2).flatten(2)
    torch.testing.assert_close(adapter(x, block.attention_weights()), msa.proj(read), rtol=1e-4, atol=1e-5)


def test_a_shift_of_the_keys_stays_and_everything_else_folds():
    backbone, x = frozen(swin_v2(), dict(type='SSF')).eval(), image()
    expected, report = backbone(x), mmpeft.merge(backbone)
    assert len(report.kept) == 5 and all(place.endswith('.attn.w_msa.qkv') for place in report.kept)
    torch.testing.assert_close(backbone(x), expected, rtol=1e-4, atol=1e-4)


def test_no_norm_before_a_reduction_takes_its_shift():
    backbone, x = frozen(swin_v2(), dict(type='SSF', sites=['merge_norm', 'reduction'])).eval(), image()
    expected, report = backbone(x), mmpeft.merge(backbone)
    assert report.folded == tuple(f'stages.{i}.downsample.norm.merge_norm' for i in (1, 2, 3))
    torch.testing.assert_close(backbone(x), expected, rtol=1e-4, atol=1e-4)


def test_weights_that_are_cast_still_tell_of_cosines():
    backbone = frozen(swin_v2(), MONA)
    weights = backbone.stages[0].blocks[0].attention_weights()
    cast = weights.cast(lambda tensor: None if tensor is None else tensor.bfloat16())
    assert cast.q_weight.dtype == torch.bfloat16 and torch.equal(cast.cosine_scale, weights.cosine_scale)
