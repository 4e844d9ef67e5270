import copy
import pickle

import pytest
import torch
from mmengine.hooks import EMAHook
from mmengine.model import ExponentialMovingAverage
from mmpretrain.models.utils import ShiftWindowMSA
from tiny import LIBRARIES, MONA, image, swin
from torch._subclasses.fake_tensor import FakeTensorMode

import mmpeft
from mmpeft.costs import saved_bytes
from mmpeft.hosts.host import adapt_as
from mmpeft.hosts.windows import WindowAttention, windows_of

SCALED = dict(type='SSF', sites=['qkv', 'proj'])


def wired(method, library='mmdet', **options):
    host = swin(library, **options)
    mmpeft.inject(host, method)
    mmpeft.freeze(host)
    return host


@pytest.fixture
def stock_attention(monkeypatch):
    """Returns a function that runs another one with the stock attention."""

    def run(function):
        with monkeypatch.context() as patch:
            patch.setattr(WindowAttention, 'forward', lambda self, *args: self.stock.forward(self, *args))
            return function()

    return run


def outputs_and_gradients(model, x):
    model.zero_grad()
    x.grad = None
    outs = model(x)
    sum((out * torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)).sum() for out in outs).backward()
    return [*outs, x.grad, *(p.grad for p in model.parameters() if p.requires_grad)]


@pytest.mark.parametrize('library', LIBRARIES)
@pytest.mark.parametrize('size', [(30, 44), (48, 96), (12, 40)])
def test_attention_that_trains_is_the_stock_module_bit_for_bit(library, size):
    plain = swin(library)
    host = copy.deepcopy(plain)
    mmpeft.inject(host, dict(type='Full'))
    x = image(*size).requires_grad_()
    for a, b in zip(outputs_and_gradients(plain, x), outputs_and_gradients(host, x), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize('library', LIBRARIES)
@pytest.mark.parametrize('size', [(30, 44), (48, 96), (12, 40)])
def test_frozen_attention_computes_what_the_stock_module_does_around_the_same_layers(library, size, stock_attention):
    host = wired(SCALED, library).double()
    for block in host.stages[0].blocks:
        block.attn.w_msa.relative_position_bias_table.requires_grad_()
    x = image(*size).double().requires_grad_()
    ours = outputs_and_gradients(host, x)
    for a, b in zip(ours, stock_attention(lambda: outputs_and_gradients(host, x)), strict=True):
        torch.testing.assert_close(a, b)


def test_frozen_attention_keeps_less_than_the_stock_module(stock_attention):
    host = wired(SCALED)
    x = image(96, 96)
    assert saved_bytes(host, lambda: host(x)) < 0.95 * stock_attention(lambda: saved_bytes(host, lambda: host(x)))


def test_under_autocast_attention_keeps_the_half_precision_of_its_input(stock_attention):
    host = wired(SCALED)
    x = image()

    def run():
        with torch.autocast('cpu', torch.bfloat16):
            return host.stages[0](host.patch_embed(x)[0], (8, 11))[0]

    ours, stock = run(), stock_attention(run)
    assert ours.dtype == stock.dtype
    torch.testing.assert_close(ours, stock, atol=3e-2, rtol=3e-2)


def test_attention_that_drops_weights_is_the_stock_module(stock_attention):
    host = wired(SCALED, attn_drop_rate=0.5)
    x = image()

    def run():
        torch.manual_seed(0)
        return host.train()(x)[-1]

    assert torch.equal(run(), stock_attention(run))
    assert not torch.equal(run(), host.eval()(x)[-1])


def test_a_map_as_narrow_as_a_window_is_not_shifted_where_the_stock_module_does_not():
    plain = ShiftWindowMSA(embed_dims=8, num_heads=1, window_size=3, shift_size=1, pad_small_map=False)
    host = copy.deepcopy(plain.requires_grad_(False))
    adapt_as(host, WindowAttention)
    x = torch.randn(2, 18, 8)
    assert torch.equal(plain(x, (3, 6)), host(x, (3, 6)))


def test_windows_are_laid_out_once_for_a_size_and_few_are_kept():
    host = wired(MONA, depths=(4, 1, 1, 1))
    windows_of.cache_clear()
    host(image())
    first = windows_of.cache_info()
    host(image())
    second = windows_of.cache_info()
    assert second.misses == first.misses > 1 and second.hits > first.hits
    for width in range(44, 164, 12):
        host(image(30, width))
    assert windows_of.cache_info().currsize <= 8


def test_windows_laid_out_in_inference_mode_serve_training():
    host = wired(MONA)
    windows_of.cache_clear()
    x = image()
    with torch.inference_mode():
        host(x)
    host.stages[0].blocks[0].attn.w_msa.relative_position_bias_table.requires_grad_()
    host(x)[-1].sum().backward()


def test_nothing_is_kept_of_tensors_without_values():
    host = wired(MONA)
    windows_of.cache_clear()
    with FakeTensorMode(allow_non_fake_inputs=True) as mode, torch.no_grad():
        host(mode.from_tensor(torch.zeros(2, 3, 30, 44)))
    assert windows_of.cache_info().currsize == 0
    assert not hasattr(host.stages[1].blocks[1].attn, 'kept_bias')


TABLE = 'stages.1.blocks.1.attn.w_msa.relative_position_bias_table'


def overwrite(host):
    host.get_parameter(TABLE).data.normal_()


def swap_as_ema(host):
    hook = EMAHook()
    hook.src_model, hook.ema_model = host, ExponentialMovingAverage(host)
    hook.ema_model.module.get_parameter(TABLE).data.normal_()
    hook._swap_ema_parameters()


def load(host):
    host.load_state_dict({**host.state_dict(), TABLE: torch.randn_like(host.get_parameter(TABLE))})


def replace(host):
    owner, _, leaf = TABLE.rpartition('.')
    table = torch.randn_like(host.get_parameter(TABLE))
    setattr(host.get_submodule(owner), leaf, torch.nn.Parameter(table, requires_grad=False))


def mix(host):
    """As learned soups compute with a mean of weights that is in no module."""
    mean = torch.randn_like(host.get_parameter(TABLE))
    return lambda x: torch.func.functional_call(host, {TABLE: mean}, x)


WRITES = {
    'written through data': overwrite,
    'swapped by EMA': swap_as_ema,
    'loaded': load,
    'replaced, as in a bank': replace,
    'given for a call, as in a soup': mix,
    'moved': lambda host: host.double(),
}


@pytest.mark.parametrize('write', WRITES)
def test_position_biases_are_kept_until_a_frozen_table_has_other_values(write, stock_attention, monkeypatch):
    monkeypatch.setenv('MMPEFT_FORM', 'cpu')
    host = wired(MONA).eval()
    attn = host.get_submodule(TABLE.partition('.w_msa')[0])
    host(image())
    first = attn.kept_bias
    host(image())
    assert attn.kept_bias is first
    call = WRITES[write](host) or host
    x = image().to(host.get_parameter(TABLE).dtype)
    torch.testing.assert_close(call(x)[-1], stock_attention(lambda: call(x)[-1]))
    assert attn.kept_bias is not first


def test_the_position_bias_of_a_table_that_trains_is_not_kept(monkeypatch):
    monkeypatch.setenv('MMPEFT_FORM', 'cpu')
    host = wired(MONA)
    attn = host.stages[1].blocks[1].attn
    attn.w_msa.relative_position_bias_table.requires_grad_()
    host(image())[-1].sum().backward()
    assert not hasattr(attn, 'kept_bias') and hasattr(host.stages[1].blocks[0].attn, 'kept_bias')


def test_attention_of_another_class_stays_what_it_is():
    host = swin()
    attn = host.stages[1].blocks[1].attn
    own = attn.__class__ = type('Own', (type(attn),), {})
    mmpeft.inject(host, MONA)
    assert type(attn) is own


def test_copies_pickles_and_loaded_weights_compute_the_same_and_merging_leaves_the_stock_class():
    host = wired(MONA)
    x = image()
    out = host.eval()(x)[-1]
    loaded = wired(MONA)
    loaded.eval().load_state_dict(host.state_dict())
    for other in (copy.deepcopy(host), pickle.loads(pickle.dumps(host)), loaded, host.double().float()):
        assert isinstance(other.stages[1].blocks[1].attn, WindowAttention)
        assert torch.equal(other(x)[-1], out)
    full = wired(dict(type='Full'))
    mmpeft.merge(full)
    assert type(full.stages[1].blocks[1].attn) is type(swin().stages[1].blocks[1].attn)
