import math

import pytest
import torch
from torch import nn

from mmpeft.hosts import Call
from mmpeft.methods import cvpt
from mmpeft.methods.cvpt import CVPT, MARGIN, Attention, folded, operations, plain
from mmpeft.methods.cvpt_function import Weights, bottleneck

TOLERANCE = {torch.float32: 2e-5, torch.float64: 1e-11}
DIM, HEADS, DEPTH = 24, 3, 4


def host_attention(dtype=torch.float32, bias=True) -> nn.MultiheadAttention:
    """A self-attention whose weights and biases are of ordinary size."""
    mha = nn.MultiheadAttention(DIM, HEADS, bias=bias, batch_first=True, dtype=dtype).eval()
    for parameter in mha.parameters():
        nn.init.normal_(parameter, std=0.4)
    return mha


def weights_of(mha: nn.MultiheadAttention) -> Attention:
    return Attention.of_fused(mha.in_proj_weight, mha.in_proj_bias, mha.out_proj, mha.num_heads)


def tokens(number=7, dtype=torch.float32) -> torch.Tensor:
    return torch.randn(2, number, DIM, dtype=dtype, requires_grad=True)


def spread(layer: CVPT) -> CVPT:
    nn.init.normal_(layer.prompts)
    return layer


def with_stream(x, prompts, attention):
    return folded(x, prompts, attention, residual=True) - x


def gradients(y, wanted):
    generator = torch.Generator().manual_seed(1)
    return torch.autograd.grad(y, wanted, torch.randn(y.shape, generator=generator).to(y))


@pytest.mark.parametrize('dtype', TOLERANCE)
@pytest.mark.parametrize('bias', [True, False])
@pytest.mark.parametrize('sets', [1, 2])
@pytest.mark.parametrize('prompts', [1, 5])
@pytest.mark.parametrize('form', [plain, folded, with_stream])
def test_all_forms_equal_torchs_multihead_attention(form, prompts, sets, bias, dtype):
    mha, x = host_attention(dtype, bias), tokens(dtype=dtype)
    p = torch.randn(sets, prompts, DIM, dtype=dtype, requires_grad=True)
    wanted = [x, p, *mha.parameters()]
    ours = form(x, p, weights_of(mha))
    expected, _ = mha(x, p.expand(2, -1, -1), p.expand(2, -1, -1), need_weights=False)
    torch.testing.assert_close(ours, expected, atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype])
    for a, b in zip(gradients(ours, wanted), gradients(expected, wanted), strict=True):
        torch.testing.assert_close(a, b, atol=10 * TOLERANCE[dtype], rtol=10 * TOLERANCE[dtype])


@pytest.mark.parametrize(
    'prompts, gradients, form',
    [(2, True, 'folded'), (9, True, 'plain'), (9, False, 'folded'), (40, False, 'plain')],
)
def test_the_layer_takes_the_cheaper_form(monkeypatch, prompts, gradients, form):
    called = []
    for name in ('plain', 'folded'):
        monkeypatch.setattr(cvpt, name, lambda x, *_, name=name, **options: called.append(name) or x)
    with torch.set_grad_enabled(gradients):
        CVPT(DIM, DEPTH, prompts).eval()(tokens(), weights_of(host_attention()))
    assert called == [form]


@pytest.mark.parametrize(
    'sizes, last',
    [(dict(), 62), (dict(backward=True), 37), (dict(backward=True, tokens=1025), 32), (dict(tokens=1025), 54)],
)
def test_vit_base_folds_up_to_this_many_prompts(sizes, last):
    choices = {m: operations(768, 12, m, **sizes) for m in (10, last, last + 1)}
    assert [m for m, (plain_cost, folded_cost) in choices.items() if folded_cost < MARGIN * plain_cost] == [10, last]


def test_shards_of_the_self_attention_are_refused_with_the_policy_that_makes_them():
    with pytest.raises(RuntimeError, match='CVPT reads .* size_based_auto_wrap_policy does. Wrap whole blocks'):
        Attention.of_fused(torch.randn(20), None, torch.nn.Linear(4, 4), 2)


def test_operations_are_those_of_the_matrix_products():
    assert operations(8, 2, 3) == (2 * 8 * 8 + 2 * 8 * 3, 2 * 8 * 6)
    assert operations(8, 2, 3, tokens=4) == (176 + 2 * 3 * 64 / 4, 96 + 6 * 3 * 64 / 4)
    assert operations(8, 2, 3, backward=True) == (2 * 128 + 3 * 48, 3 * 96 + 36)
    assert operations(8, 2, 3, tokens=4, backward=True) == (400 + 4 * 48, 324 + 36 * 8 / 4 + 16 * 48)


def test_few_tokens_do_not_pay_for_folding_each_samples_prompts():
    few, many = operations(768, 12, 10, tokens=23), operations(768, 12, 10, tokens=24)
    assert few[0] < few[1] and many[0] > many[1]


@pytest.mark.parametrize('prompts', [2, 40])
def test_the_layer_adds_the_attention_to_the_stream(prompts):
    layer, mha, x = spread(CVPT(DIM, DEPTH, prompts)).eval(), host_attention(), tokens()
    p = layer.prompts.expand(2, -1, -1)
    torch.testing.assert_close(layer(x, weights_of(mha)), x + mha(x, p, p)[0], atol=2e-5, rtol=2e-5)


def test_beside_the_attention_the_stream_is_not_added():
    layer, beside = CVPT(DIM, DEPTH).eval(), CVPT(DIM, DEPTH, place='beside_attn').eval()
    beside.load_state_dict(layer.state_dict())
    x, attention = tokens(), weights_of(host_attention())
    torch.testing.assert_close(x + beside(x, attention), layer(x, attention))
    assert beside.beside and not layer.beside and not CVPT.beside


def test_weights_are_read_in_every_call():
    layer, mha, x = spread(CVPT(DIM, DEPTH)).eval(), host_attention(), tokens()
    before = layer(x, weights_of(mha))
    with torch.no_grad():
        mha.in_proj_weight.mul_(2)
    p = layer.prompts.expand(2, -1, -1)
    torch.testing.assert_close(layer(x, weights_of(mha)), x + mha(x, p, p)[0], atol=2e-5, rtol=2e-5)
    assert not torch.allclose(before, layer(x, weights_of(mha)))
    assert set(layer.state_dict()) == {'prompts'}


@pytest.mark.parametrize('dim, depth, prompts, bound', [(768, 12, 10, 0.01884), (1024, 24, 10, 0.01313)])
def test_the_start_is_within_the_published_bound(dim, depth, prompts, bound):
    layer = CVPT(dim, depth, prompts)
    assert layer.prompts.abs().max().item() == pytest.approx(bound, rel=2e-3)
    assert layer.prompts.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.03)


def test_the_start_is_xaviers_for_the_prompts_of_all_blocks_together():
    together = nn.init.xavier_uniform_(torch.empty(DEPTH, 200, DIM))
    assert CVPT(DIM, DEPTH, 200).prompts.abs().max().item() == pytest.approx(together.abs().max().item(), rel=0.01)


def test_published_counts():
    for dim, depth, expected in ((768, 12, 92_160), (1024, 24, 245_760)):
        assert depth * sum(p.numel() for p in CVPT(dim, depth).parameters()) == expected
    learned = CVPT(768, 12, learn=True)
    assert 12 * sum(p.numel() for name, p in learned.named_parameters() if name != 'prompts') == 28_348_416


def test_a_single_prompt_adds_one_vector_to_all_tokens():
    layer, x = spread(CVPT(DIM, DEPTH, num_prompts=1)).eval(), tokens()
    added = layer(x, weights_of(host_attention())) - x
    assert added.norm() > 1
    torch.testing.assert_close(added, added[:1, :1].expand_as(added), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize('prompts', [2, 40])
def test_dropout_gives_each_sample_its_own_prompts(prompts):
    layer, attention = spread(CVPT(DIM, DEPTH, prompts, dropout=0.5)), weights_of(host_attention())
    x = tokens()[:1].expand(2, -1, -1)
    first, second = layer.train()(x, attention)
    assert not torch.allclose(first, second)
    first, second = layer.eval()(x, attention)
    torch.testing.assert_close(first, second)


@pytest.mark.parametrize('number, form', [(200, folded), (1, plain)])
def test_with_dropout_the_layer_reads_the_dropped_prompts(number, form):
    layer, mha, x = spread(CVPT(DIM, DEPTH, 4, dropout=0.5)).train(), host_attention(), tokens(number)
    state = torch.get_rng_state()
    ours = layer(x, weights_of(mha))
    torch.set_rng_state(state)
    p = nn.functional.dropout(layer.prompts.expand(2, -1, -1), 0.5)
    assert 0 < (p == 0).sum() < p.numel()
    torch.testing.assert_close(ours, x + form(x, p, weights_of(mha)))
    torch.testing.assert_close(ours, x + mha(x, p, p)[0], atol=2e-5, rtol=2e-5)


def test_dropout_after_the_output_projection_is_the_hosts():
    mha, x = host_attention(), tokens()
    attention = Attention.of_fused(mha.in_proj_weight, mha.in_proj_bias, mha.out_proj, HEADS, out_dropout=0.5)
    layer = spread(CVPT(DIM, DEPTH, dropout=0))
    assert ((layer.train()(x, attention) - x) == 0).float().mean().item() == pytest.approx(0.5, abs=0.1)
    assert ((layer.eval()(x, attention) - x) != 0).all()


def test_the_folded_matrices_compute_the_attention():
    mha, x, p = host_attention(torch.float64), tokens(dtype=torch.float64), torch.randn(1, 5, DIM, dtype=torch.float64)
    a = weights_of(mha)
    keys, values = nn.functional.linear(p, a.k_weight, a.k_bias), nn.functional.linear(p, a.v_weight, a.v_bias)
    weights = Weights(keys, values, a.q_weight, a.q_bias, a.out_weight, a.out_bias)
    down, down_bias, up = bottleneck(weights, HEADS)
    scores = (x @ down[0].T + down_bias[0]).view(2, 7, HEADS, 5).softmax(-1).view(2, 7, HEADS * 5)
    torch.testing.assert_close(scores @ up[0], mha(x, p.expand(2, -1, -1), p.expand(2, -1, -1))[0])


LEARNED = {f'{name}.{kind}' for name in ('q', 'k', 'v', 'out') for kind in ('weight', 'bias')}


@pytest.mark.parametrize(
    'share, learn, trained, saved',
    [
        (True, False, set(), set()),
        (True, True, LEARNED, LEARNED),
        (False, True, LEARNED, LEARNED),
        (False, False, set(), LEARNED),
    ],
)
def test_what_trains_and_what_is_saved(share, learn, trained, saved):
    layer = CVPT(DIM, DEPTH, share=share, learn=learn)
    assert {name for name, _ in layer.named_parameters()} == trained | {'prompts'}
    assert set(layer.state_dict()) == saved | {'prompts'}
    layer(tokens(), weights_of(host_attention())).sum().backward()
    assert all(p.grad is not None for p in layer.parameters())


@pytest.mark.parametrize('bias', [True, False])
def test_shared_weights_that_learn_start_as_the_hosts_and_leave_it_alone(bias):
    mha, layer, x = host_attention(bias=bias).requires_grad_(False), CVPT(DIM, DEPTH, share=True, learn=True), tokens()
    frozen = CVPT(DIM, DEPTH)
    frozen.load_state_dict({'prompts': layer.prompts})
    before = [p.clone() for p in mha.parameters()]
    assert torch.equal(layer.eval()(x, weights_of(mha)), frozen.eval()(x, weights_of(mha)))
    layer(x, weights_of(mha)).square().sum().backward()
    torch.optim.SGD(layer.parameters(), lr=0.1).step()
    assert not torch.allclose(layer(x, weights_of(mha)), frozen(x, weights_of(mha)))
    assert all(map(torch.equal, before, mha.parameters()))


def test_weights_of_its_own_are_random_and_do_not_depend_on_the_hosts():
    layer, x = CVPT(DIM, DEPTH, share=False).eval(), tokens()
    assert torch.equal(layer(x, weights_of(host_attention())), layer(x, weights_of(host_attention())))
    for linear in layer.children():
        assert 0.9 * DIM**-0.5 < linear.weight.abs().max() <= DIM**-0.5
    before = layer.q.weight.clone()
    layer.reset_parameters()
    assert not torch.equal(before, layer.q.weight)


def test_places_of_options():
    assert CVPT.places({'num_prompts': 5}) == {'after_attn': {'num_prompts': 5}}
    assert CVPT.places({'place': 'ffn_input'}) == {'ffn_input': {'place': 'ffn_input'}}
    with pytest.raises(ValueError, match="places before_attn, .* got 'patch_embed'"):
        CVPT.places({'place': 'patch_embed'})


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(num_prompts=0), f'at least 1, got dim={DIM}, depth={DEPTH}, num_prompts=0'),
        (dict(depth=0), 'depth=0'),
        (dict(dropout=1), r'dropout in \[0, 1\), got 1'),
        (dict(place='norm1'), 'places before_attn, beside_attn, after_attn, ffn_input, after_ffn, got .norm1'),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        CVPT(**{'dim': DIM, 'depth': DEPTH, **options})


def test_heads_that_do_not_divide_the_channels_are_an_error():
    out = nn.Linear(8, 8)
    with pytest.raises(ValueError, match='8 channels do not split into 3 heads'):
        Attention.of_fused(torch.randn(24, 8), None, out, num_heads=3)


@pytest.mark.parametrize('prompts', [2, 40])
@pytest.mark.parametrize('dropout', [0, 1e-6])
def test_bfloat16_autocast_keeps_the_stream_in_fp32(prompts, dropout):
    layer, x, attention = CVPT(DIM, DEPTH, prompts, dropout), tokens(200), weights_of(host_attention())
    with torch.autocast('cpu', torch.bfloat16):
        out = layer(x, attention)
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, layer(x, attention), atol=3e-2, rtol=3e-2)
    out.sum().backward()
    assert layer.prompts.grad.dtype == torch.float32


@pytest.mark.parametrize('prompts', [2, 40])
def test_it_exports_with_any_number_of_images_and_tokens(prompts):
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.attn = host_attention()
            self.adapter = CVPT(DIM, DEPTH, prompts)

        def forward(self, x):
            return self.adapter(x, weights_of(self.attn))

    block, x = Block().eval(), tokens(31).detach().repeat(3, 1, 1)
    sizes = {0: torch.export.Dim('images', max=64), 1: torch.export.Dim('tokens', max=4096)}
    exported = torch.export.export(block, (tokens().detach(),), dynamic_shapes=(sizes,)).module()
    torch.testing.assert_close(exported(x), block(x))


@pytest.mark.parametrize('options', [dict(), dict(learn=True), dict(share=False), dict(place='beside_attn')])
@pytest.mark.parametrize('num_prompts', [1, 40])
def test_weights_that_the_call_holds_in_the_dtype_of_autocast_change_no_bit(options, num_prompts):
    layer = spread(CVPT(DIM, DEPTH, num_prompts=num_prompts, dropout=0, **options))
    for own in layer.children():  # too little to be seen beside a weight in half precision
        nn.init.constant_(own.weight, 1e-4)
    mha = nn.MultiheadAttention(DIM, 2).requires_grad_(False)
    x, call = tokens(), Call(casts={id(weight): weight.bfloat16() for weight in mha.parameters()})
    with torch.autocast('cpu', torch.bfloat16):
        ours, theirs = layer(x, weights_of(mha), call), layer(x, weights_of(mha))
    wanted = [x, *layer.parameters()]
    assert torch.equal(ours, theirs)
    assert all(map(torch.equal, gradients(ours, wanted), gradients(theirs, wanted)))
