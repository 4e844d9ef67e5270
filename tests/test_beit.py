"""BEiT and MAE: attention with biases of places, and with biases of queries and values beside the projection."""

import copy

import numpy as np
import pytest
import torch
from mmengine.registry import MODELS
from mmpretrain.models import BEiTPretrainViT
from scipy.interpolate import RectBivariateSpline
from tiny import HOSTS, MONA, ONE_GRID, VIT, filled, image, mmpretrain_beit, mmseg_beit

import mmpeft
from mmpeft.costs import saved_bytes
from mmpeft.hosts.tables import resize_table
from mmpeft.mm.checks import register_library
from mmpeft.plain import use_plain_forms

SSF = dict(type='SSF', sites=['qkv'])
KINDS = {
    'mmseg BEiT': mmseg_beit,
    'mmseg MAE': HOSTS['mmseg MAE'],
    'mmpretrain BEiT': mmpretrain_beit,
    'one table for all blocks': lambda: mmpretrain_beit(use_rel_pos_bias=False, use_shared_rel_pos_bias=True),
    'no table': lambda: mmpretrain_beit(use_rel_pos_bias=False, use_abs_pos_emb=True),
    'no layer scale': lambda: mmpretrain_beit(layer_scale_init_value=0),
}


def frozen(backbone, method=None):
    mmpeft.inject(backbone, method or dict(type='Frozen'))
    mmpeft.freeze(backbone)
    return backbone


@pytest.mark.parametrize('kind', KINDS)
def test_frozen_attention_computes_what_the_stock_module_does(kind):
    plain, x, found = KINDS[kind](), image().requires_grad_(), []
    for model in (plain, frozen(copy.deepcopy(plain), MONA | dict(blocks=r'layers\.2'))):
        model.eval()
        outs = model(x)[:1]  # before the block with adapters
        found.append([*outs, *torch.autograd.grad(sum(out.square().sum() for out in outs), x)])
    for stock, ours in zip(*found, strict=True):
        torch.testing.assert_close(ours, stock, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('kind', ['mmseg BEiT', 'mmpretrain BEiT'])
def test_frozen_attention_keeps_biases_of_pairs_and_no_weights(kind):
    ours = frozen(KINDS[kind](img_size=(112, 112), patch_size=7), MONA)
    plain = copy.deepcopy(ours)
    use_plain_forms(plain)
    plain, ours = (saved_bytes(model, lambda model=model: model(image(112, 112))) for model in (plain, ours))
    biases = 4 * 3 * 2 * 257**2  # bytes, blocks, heads and pairs of tokens
    # Two images have twice as many weights, of which the stock module keeps at least one copy.
    assert plain - ours > 0.9 * (2 * biases - biases)


@pytest.mark.parametrize('kind', ['mmseg BEiT', 'mmpretrain BEiT'])
def test_a_shift_of_queries_and_values_folds_and_one_of_keys_changes_nothing(kind):
    backbone, x = frozen(KINDS[kind](), SSF).eval(), image()
    adapter = backbone.layers[0].attn.adapters.qkv
    expected = backbone(x)
    adapter.shift.data[16:32] += 5
    torch.testing.assert_close(backbone(x), expected, rtol=1e-4, atol=1e-4)
    adapter.shift.data[:16] += 5
    expected, shift = backbone(x), adapter.shift.data.clone()
    assert mmpeft.merge(backbone).is_stock
    torch.testing.assert_close(backbone(x), expected, rtol=1e-4, atol=1e-4)
    assert (backbone.layers[0].attn.q_bias - shift[:16]).abs().max() < 2


def test_where_no_option_makes_a_bias_what_shifts_stays_and_what_does_not_folds():
    backbone = frozen(mmseg_beit(qv_bias=False), SSF)
    assert mmpeft.merge(backbone).kept == tuple(f'layers.{i}.attn.qkv' for i in range(3))
    assert mmpeft.merge(frozen(mmseg_beit(qv_bias=False), dict(type='LoRA', rank=2))).is_stock


def test_a_new_bias_loads_in_the_stock_backbone_that_the_report_names():
    backbone, x = frozen(mmpretrain_beit(bias=False), SSF).eval(), image()
    expected, report = backbone(x), mmpeft.merge(backbone)
    assert report.options == ('bias',) and report.new_biases[0] == 'layers.0.attn.qkv.bias'
    stock = mmpretrain_beit(bias=True)
    stock.eval()
    stock.load_state_dict(backbone.state_dict())
    torch.testing.assert_close(stock(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('kind', ['mmseg BEiT', 'mmpretrain BEiT'])
def test_bitfit_trains_the_biases_of_queries_and_values(kind):
    backbone = frozen(KINDS[kind](), dict(type='BitFit'))
    assert {f'layers.{i}.attn.{part}_bias' for i in range(3) for part in 'qv'} <= mmpeft.trained_names(backbone)


def spline_of_the_authors(table, size, grid):
    """As in BEiT's code, with what SciPy names in the place of the function that it removed."""
    left, right, old, new = 1.01, 1.5, 2 * size - 1, 2 * grid - 1
    while right - left > 1e-6:
        q = (left + right) / 2
        left, right = (left, q) if (1 - q ** (old // 2)) / (1 - q) > new // 2 else (q, right)
    steps = np.cumsum([q**i for i in range(old // 2)])
    x, wanted = [*-steps[::-1], 0, *steps], np.arange(-(new // 2), new // 2 + 0.1)
    maps = [RectBivariateSpline(x, x, head.view(old, old))(wanted, wanted).ravel() for head in table[:-3].T]
    return torch.cat((torch.tensor(np.stack(maps, 1)), table[-3:]))


@pytest.mark.parametrize('size, grid', [(14, 40), (14, 16), (8, 4)])
def test_a_table_for_another_grid_is_the_spline_of_the_authors(size, grid):
    table = torch.randn((2 * size - 1) ** 2 + 3, 2, dtype=torch.float64)
    torch.testing.assert_close(resize_table(table, (grid, grid)), spline_of_the_authors(table, size, grid))


@pytest.mark.parametrize('kind, prefix', [('mmseg BEiT', ''), ('mmpretrain BEiT', 'backbone.')])
def test_a_file_for_another_grid_loads_with_the_buffers_of_this_one(kind, prefix, tmp_path):
    plain = KINDS[kind](img_size=(42, 42))
    path = tmp_path / 'base.pth'
    torch.save(dict(state_dict={prefix + name: t for name, t in plain.state_dict().items()}), path)
    init_cfg = dict(type='Pretrained', checkpoint=str(path), **(dict(prefix=prefix) if prefix else {}))
    backbone = frozen(KINDS[kind](init_cfg=init_cfg), MONA)
    backbone.expect_base()
    backbone.init_weights()
    table = 'layers.1.attn.relative_position_bias_table'
    assert not backbone.missing
    torch.testing.assert_close(backbone.get_parameter(table), resize_table(plain.get_parameter(table), (2, 3)))
    assert torch.equal(backbone.layers[1].gamma_2, plain.layers[1].gamma_2)
    assert backbone(image())[0].shape[2:] == (2, 3)


@pytest.mark.parametrize(
    'part, cls', [('attn', torch.nn.Identity), ('ffn', torch.nn.Identity), ('ln2', torch.nn.BatchNorm1d)]
)
def test_a_block_of_other_parts_is_refused(part, cls):
    backbone = mmseg_beit()
    setattr(backbone.layers[1], part, cls(16) if part == 'ln2' else cls())
    with pytest.raises(
        ValueError, match=rf'layers\.1 takes no adapters: its {part} is a torch\.nn\.\S+, and its adapters'
    ):
        mmpeft.inject(backbone, MONA)
    assert type(backbone) is type(mmseg_beit())


def test_masked_pretraining_goes_on_with_adapters():
    arch = dict(VIT, feedforward_channels=32)
    backbone = frozen(filled(BEiTPretrainViT(arch=arch, img_size=32, patch_size=8, layer_scale_init_value=0.5)), MONA)
    (tokens,) = backbone(image(32, 32), torch.arange(32).view(2, 4, 4) % 2)
    tokens.sum().backward()
    assert tokens.shape == (2, 17, 16)
    assert all(p.grad is not None for n, p in backbone.named_parameters() if mmpeft.is_adapter(n))


def test_a_file_of_masked_pretraining_is_a_whole_base_of_mae(tmp_path):
    register_library('mmseg')
    plain = mmseg_beit('MAE')
    kept = {name: t for name, t in plain.state_dict().items() if 'gamma' not in name and 'relative' not in name}
    torch.save(kept, tmp_path / 'mae.pth')
    sizes = dict(VIT, mlp_ratio=2, init_values=1.0, **ONE_GRID)
    config = dict(type='mmseg.MAE', **sizes, init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'mae.pth')))
    backbone = MODELS.build(dict(type='mmpeft.AdaptedBackbone', method=MONA, backbone=config))
    backbone.init_weights()
    assert not backbone.missing and all(torch.equal(backbone.state_dict()[name], t) for name, t in kept.items())
    assert backbone.layers[0].gamma_1.eq(1).all() and not backbone.layers[0].attn.relative_position_bias_table.any()
    backbone.train()
    backbone(image())[-1].sum().backward()
