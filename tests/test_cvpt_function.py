"""The folded form of CVPT as one operation: what it keeps, and where its gradients hold."""

from dataclasses import replace

import pytest
import torch
from test_cvpt import DEPTH, DIM, HEADS, gradients, host_attention, spread, tokens, weights_of
from torch import nn
from torch.utils.checkpoint import checkpoint

from mmpeft.costs import saved_bytes
from mmpeft.methods.cvpt import CVPT, MARGIN, Attention, folded, operations, plain
from mmpeft.plain import PlainCVPT


def frozen_attention() -> Attention:
    return weights_of(host_attention().requires_grad_(False))


def few(**options) -> CVPT:
    """A layer that folds."""
    return spread(CVPT(DIM, DEPTH, 2, **options))


@pytest.mark.parametrize('sets', [1, 2])
@pytest.mark.parametrize('residual', [True, False])
def test_gradients_are_those_of_finite_differences(residual, sets):
    attention = weights_of(host_attention(torch.float64))
    inputs = tokens(3, torch.float64), torch.randn(sets, 2, DIM, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, p: folded(x, p, attention, residual), inputs, fast_mode=True)


@pytest.mark.parametrize('dropout', [0, 0.1])
@pytest.mark.parametrize('place', ['after_attn', 'beside_attn'])
@pytest.mark.parametrize('dim, heads, number', [(768, 12, 256), (96, 3, 1024)])
def test_it_keeps_less_than_the_published_form_up_to_the_last_number_that_folds(dim, heads, number, place, dropout):
    mha, x = nn.MultiheadAttention(dim, heads).requires_grad_(False), torch.randn(2, number, dim)
    shared = number if dropout else None
    costs = {m: operations(dim, heads, m, shared, backward=True) for m in range(1, 50)}
    last = max(m for m, (plain, folded) in costs.items() if folded < MARGIN * plain)
    ours, plain = (form(dim, DEPTH, last, dropout, place) for form in (CVPT, PlainCVPT))
    x, attention = x.requires_grad_(), weights_of(mha)
    assert saved_bytes(mha, lambda: ours(x, attention)) < saved_bytes(mha, lambda: plain(x, attention))


def test_of_the_stream_it_keeps_the_result_alone_which_the_next_norm_keeps_too():
    layer, mha, x = few(dropout=0), host_attention().requires_grad_(False), tokens(50)
    norm = nn.LayerNorm(DIM)
    model = nn.ModuleList([layer, mha, norm])
    scores, keys_and_values = 4 * 2 * 50 * HEADS * 2, 2 * 4 * 2 * DIM
    kept = saved_bytes(model, lambda: norm(layer(x, weights_of(mha))))
    assert kept == saved_bytes(norm, lambda: norm(x)) + scores + keys_and_values


@pytest.mark.parametrize('reentrant', [False, True])
def test_checkpointing_changes_no_gradient(reentrant):
    layer, attention, x = few(dropout=0.5), frozen_attention(), tokens(200)
    torch.manual_seed(4)
    expected = gradients(layer(x, attention), [x, layer.prompts])
    torch.manual_seed(4)
    out = checkpoint(layer, x, attention, use_reentrant=reentrant)
    out.backward(torch.randn(out.shape, generator=torch.Generator().manual_seed(1)))
    assert torch.equal(x.grad, expected[0]) and torch.equal(layer.prompts.grad, expected[1])


def test_behind_a_frozen_stem_the_prompts_get_their_gradient():
    layer, attention, x = few(dropout=0), frozen_attention(), tokens()
    expected = gradients(layer(x, attention), layer.prompts)
    assert torch.equal(*gradients(layer(x.detach(), attention), layer.prompts), *expected)


def test_before_prompts_that_do_not_train_the_stream_gets_its_gradient():
    layer, attention, x = few(dropout=0), frozen_attention(), tokens()
    expected = gradients(layer(x, attention), x)
    assert torch.equal(*gradients(layer.requires_grad_(False)(x, attention), x), *expected)


@pytest.mark.parametrize('trains', ['q_weight', 'out_weight'])
def test_projections_that_train_get_their_gradient_beside_frozen_prompts(trains):
    layer, attention, x = few(dropout=0).requires_grad_(False), frozen_attention(), tokens().detach()
    found = []
    for form in (folded, plain):
        weight = getattr(attention, trains).detach().requires_grad_()
        y = form(x, layer.prompts.unsqueeze(0), replace(attention, **{trains: weight}))
        found.append(torch.autograd.grad(y.square().sum(), weight)[0])
    torch.testing.assert_close(*found, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize('dropout', [0, 0.5])
def test_bfloat16_autocast_keeps_gradients_near(dropout):
    layer, attention, x = few(dropout=dropout), frozen_attention(), tokens(200)
    found = []
    for enabled in (True, False):
        torch.manual_seed(4)
        with torch.autocast('cpu', torch.bfloat16, enabled):
            out = layer(x, attention)
        found.append(gradients(out, [x, layer.prompts]))
    for ours, exact in zip(*found, strict=True):
        assert ours.dtype == torch.float32 and (ours - exact).norm() < 3e-2 * exact.norm()


def test_a_layer_in_bfloat16_has_gradients_near_those_of_float32():
    mha, layer, x = host_attention(), few(dropout=0), tokens(200)
    exact = gradients(layer(x, weights_of(mha)), [x, layer.prompts])
    mha, layer, x = mha.bfloat16(), layer.bfloat16(), x.detach().bfloat16().requires_grad_()
    ours = gradients(layer(x, weights_of(mha)), [x, layer.prompts])
    for a, b in zip(ours, exact, strict=True):
        assert a.dtype == torch.bfloat16 and (a - b).norm() < 5e-2 * b.norm()


def test_a_second_derivative_is_an_error():
    x = tokens(200)
    (first,) = torch.autograd.grad(few()(x, frozen_attention()).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match='differentiate twice'):
        first.sum().backward()


def test_compiled_it_computes_the_same():
    layer, attention, x = few(dropout=0), frozen_attention(), tokens(200)
    compiled = torch.compile(layer, backend='aot_eager', fullgraph=True)
    ours, expected = compiled(x, attention), layer(x, attention)
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)
    for a, b in zip(*(gradients(y, [x, layer.prompts]) for y in (ours, expected)), strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)
