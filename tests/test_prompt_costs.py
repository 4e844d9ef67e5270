"""What prompts cost by their number, and what attention they get."""

import csv
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmseg.models import VisionTransformer
from test_similarity import ready, segmentor
from tiny import mmpretrain_vit, mmseg_vit, swin
from tiny_data import tool
from torch.nn.attention import SDPBackend, sdpa_kernel

import mmpeft
from mmpeft.costs import flops, peak_of_tensors
from mmpeft.hosts.call import Call, opened
from mmpeft.mm.checks import UserError
from mmpeft.mm.reports.benchmarking import adapted
from mmpeft.mm.reports.prompt_attention import _Watch, pretrained_shares, prompt_share
from mmpeft.mm.reports.prompt_counts import Classifier, costs

ONE_BLOCK = dict(img_size=32, patch_size=8, embed_dims=16, num_layers=1, num_heads=2, out_indices=(0,))


def vpt(backbone, **options):
    mmpeft.inject(backbone, dict(type='VPT', num_prompts=3, **options))
    mmpeft.freeze(backbone)
    return backbone


def by_case(rows):
    return {(row.method, row.form, row.prompts): row for row in rows}


def test_costs_that_need_no_computing_are_those_of_real_tensors():
    stock, shape = VisionTransformer(**ONE_BLOCK).requires_grad_(False), (2, 3, 32, 32)
    row = by_case(costs(stock, [5], shape))['VPT', 'ours', 5]
    model, images = Classifier(adapted(stock, dict(type='VPT', num_prompts=5))), torch.randn(shape)
    given = sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers(), images))
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        training = peak_of_tensors(lambda: model(images).sum().backward())
        assert row.training == pytest.approx((given + training) / 1e6)
        assert row.gflops == pytest.approx(flops(lambda: model(images)) / 2e9)


def test_prompts_cost_most_where_attention_keeps_its_weights():
    rows = by_case(costs(VisionTransformer(**ONE_BLOCK).requires_grad_(False), [2, 40], (2, 3, 32, 32)))
    assert len(rows) == 2 * (1 + 2 * 2)
    for form in ('plain', 'ours'):
        assert rows['VPT', form, 40].gflops > rows['CVPT', form, 40].gflops > rows['linear probing', form, 0].gflops
        assert rows['VPT', form, 40].training > rows['CVPT', form, 40].training
    assert rows['VPT', 'plain', 40].training > rows['VPT', 'ours', 40].training
    assert rows['CVPT', 'plain', 2].gflops > rows['CVPT', 'ours', 2].gflops
    assert all(row.training >= row.inference for row in rows.values())


def test_only_what_class_token_and_patches_pay_counts():
    # A class token, three prompts and two patches: prompts look at the others, and all others at the prompts.
    sides = torch.tensor([1.0, -1, -1, -1, 1, 1]).reshape(1, 1, 6, 1)
    with opened(Call((1, 2), extra_tokens=1)), _Watch() as seen:
        F.scaled_dot_product_attention(sides, -100 * sides, sides)
    assert (seen.prompts, seen.shares, seen.even) == ([3], [1], [0.5])


@pytest.mark.parametrize('make', [mmseg_vit, mmpretrain_vit])
@pytest.mark.parametrize('deep', [True, False])
def test_attention_that_makes_no_difference_gives_prompts_an_even_share(make, deep):
    backbone = vpt(make(), deep=deep)
    images = torch.randn(2, 3, 32, 32).split(1)
    assert prompt_share('tiny', backbone, images).share != pytest.approx(3 / 20, abs=1e-6)
    for name, parameter in backbone.named_parameters():
        if name.endswith(('in_proj_weight', 'qkv.weight', 'in_proj_bias', 'qkv.bias')):
            torch.nn.init.zeros_(parameter)
    found = prompt_share('tiny', backbone, images)
    assert (found.model, found.prompts) == ('tiny', 3)
    assert found.share == pytest.approx(found.even) == pytest.approx(3 / 20)


def test_what_has_no_prompts_and_no_image_is_refused():
    images = [torch.randn(1, 3, 32, 32)]
    with pytest.raises(UserError, match='a SwinTransformer has no prompts among its tokens'):
        prompt_share('swin', swin(), images)
    cvpt = adapted(mmseg_vit().requires_grad_(False), dict(type='CVPT'))
    with pytest.raises(UserError, match='there are no prompts among its tokens; give a model with VPT'):
        prompt_share('cvpt', cvpt, images)
    with pytest.raises(UserError, match='no attention was seen'):
        prompt_share('none', vpt(mmseg_vit()), [])


def test_the_tool_writes_tables_and_a_picture(tmp_path, capsys):
    torch.manual_seed(0)
    trained, out = ready(partial(segmentor, name='vpt_vit_ade20k'), tmp_path / 'run'), tmp_path / 'out'
    stock = str(tmp_path / 'stock.py')
    Config(dict(default_scope='mmseg', model=dict(backbone=dict(ONE_BLOCK, type='VisionTransformer')))).dump(stock)
    options = ['--prompts', '1', '4', '--size', '32', '32', '--batch', '2', '--images', '1']
    capsys.readouterr()
    tool('prompt_costs').main([stock, *options, '--out', str(out), '--trained', trained])
    assert (out / 'prompt_costs.md').read_text() in capsys.readouterr().out
    rows = list(csv.DictReader((out / 'prompt_costs.csv').open()))
    assert [row['prompts'] for row in rows] == ['0', '0', *['1', '4'] * 4] and {row['batch'] for row in rows} == {'2'}
    shares = list(csv.DictReader((out / 'prompt_attention.csv').open()))
    random = 'random base, prompts at the start'
    assert [(row['model'], row['prompts']) for row in shares] == [(random, '1'), (random, '4'), ('tuned', '10')]
    assert all(0 < float(row['share']) < 1 for row in shares)
    assert (out / 'prompt_costs.png').stat().st_size > 20_000
    assert [share.prompts for share in pretrained_shares(trained.partition('=')[0], [4], 1)] == [4]
    with pytest.raises(SystemExit, match='holds files already'):
        tool('prompt_costs').main([stock, '--out', str(out)])
