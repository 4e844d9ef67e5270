import copy
import pickle

import pytest
import torch
from mmpretrain.models.utils import ShiftWindowMSA
from tiny import LIBRARIES, MONA, image, swin
from torch._subclasses.fake_tensor import FakeTensorMode

import mmpeft
from mmpeft.hosts.host import adapt_as
from mmpeft.hosts.windows import WindowAttention, mask_of


def wired(library='mmdet', **options):
    plain = swin(library, **options)
    host = copy.deepcopy(plain)
    mmpeft.inject(host, dict(type='Full'))
    return plain, host


@pytest.mark.parametrize('library', LIBRARIES)
@pytest.mark.parametrize('size', [(30, 44), (48, 96), (12, 40)])
def test_windows_compute_what_the_stock_module_does_bit_for_bit(library, size):
    plain, host = wired(library)
    x = image(*size)
    for a, b in zip(plain(x), host(x), strict=True):
        assert torch.equal(a, b)
    sum(out.square().sum() for out in plain(x)).backward()
    sum(out.square().sum() for out in host(x)).backward()
    grads = dict(host.named_parameters())
    assert all(torch.equal(p.grad, grads[name].grad) for name, p in plain.named_parameters())


def test_a_map_as_narrow_as_a_window_is_not_shifted_where_the_stock_module_does_not():
    plain = ShiftWindowMSA(embed_dims=8, num_heads=1, window_size=3, shift_size=1, pad_small_map=False)
    host = copy.deepcopy(plain)
    adapt_as(host, WindowAttention)
    x = torch.randn(2, 18, 8)
    assert torch.equal(plain(x, (3, 6)), host(x, (3, 6)))


def test_masks_are_computed_once_for_a_size_and_few_are_kept():
    _, host = wired(depths=(4, 1, 1, 1))
    mask_of.cache_clear()
    host(image())
    host(image())
    assert (mask_of.cache_info().misses, mask_of.cache_info().hits) == (1, 3)
    for width in range(44, 164, 12):
        host(image(30, width))
    assert mask_of.cache_info().currsize <= 4


def test_a_mask_made_in_inference_mode_serves_training():
    plain, host = wired()
    mask_of.cache_clear()
    x = image()
    with torch.inference_mode():
        host(x)
    host(x)[-1].sum().backward()
    assert torch.equal(plain(x)[-1], host(x)[-1])


def test_no_mask_is_made_of_tensors_without_values():
    _, host = wired()
    mask_of.cache_clear()
    with FakeTensorMode(allow_non_fake_inputs=True) as mode, torch.no_grad():
        host(mode.from_tensor(torch.zeros(2, 3, 30, 44)))
    assert mask_of.cache_info().currsize == 0


def test_attention_of_another_class_stays_what_it_is():
    host = swin()
    attn = host.stages[1].blocks[1].attn
    own = attn.__class__ = type('Own', (type(attn),), {})
    mmpeft.inject(host, MONA)
    assert type(attn) is own


def test_copies_pickles_and_loaded_weights_compute_the_same_and_merging_leaves_the_stock_class():
    host = swin()
    stock = type(host.stages[1].blocks[1].attn)
    mmpeft.inject(host, MONA)
    x = image()
    out = host.eval()(x)[-1]
    loaded = swin()
    mmpeft.inject(loaded, MONA)
    loaded.eval().load_state_dict(host.state_dict())
    for other in (copy.deepcopy(host), pickle.loads(pickle.dumps(host)), loaded, host.double().float()):
        assert isinstance(other.stages[1].blocks[1].attn, WindowAttention)
        assert torch.equal(other(x)[-1], out)
    _, full = wired()
    mmpeft.merge(full)
    assert type(full.stages[1].blocks[1].attn) is stock
