"""Numbers of trainable parameters on backbones of published sizes, as in the papers, their code and their logs."""

import copy
from functools import cache

import mmpretrain.models
import pytest
import torch
from tiny import SWINS

import mmpeft

SWIN = {
    'T': dict(embed_dims=96, depths=(2, 2, 6, 2), num_heads=(3, 6, 12, 24)),
    'S': dict(embed_dims=96, depths=(2, 2, 18, 2), num_heads=(3, 6, 12, 24)),
    'B': dict(embed_dims=128, depths=(2, 2, 18, 2), num_heads=(4, 8, 16, 32)),
    'L': dict(embed_dims=192, depths=(2, 2, 18, 2), num_heads=(6, 12, 24, 48)),
}
SSF = dict(type='SSF')
LAST_NORM = '^(?!norm[012]$)'
MERGING = ['patch_embed', 'patch_norm', 'norm1', 'qkv', 'proj', 'norm2', 'fc1', 'fc2', 'merge_norm', 'output_norm']
ON_SWIN = {
    'SSF': (SSF, dict(T=100_416, B=269_056, L=403_584)),
    # A classifier has the norm of its last output alone; the paper's text adds the norms between the stages.
    'SSF of a classifier': (dict(SSF, blocks=LAST_NORM), dict(T=99_072, B=267_264, L=400_896)),
    'SSF of a classifier, merging': (dict(SSF, blocks=LAST_NORM, sites=MERGING), dict(B=274_432)),
    'LoRA': (dict(type='LoRA'), dict(B=3_080_192, L=4_620_288)),
    'Adapter': (dict(type='Adapter'), dict(B=3_107_328, L=4_659_456)),
    'AdaptFormer': (dict(type='AdaptFormer'), dict(B=1_553_664, L=2_329_728)),
    'LoRand': (dict(type='LoRand'), dict(B=2_370_816, L=3_543_936)),
    'BitFit with tables': (dict(type='BitFit', tables=True), dict(B=201_656, L=302_484)),
    'BitFit': (dict(type='BitFit'), dict(B=138_112, L=207_168)),
    'NormTuning': (dict(type='NormTuning'), dict(B=59_392, L=89_088)),
    'Partial': (dict(type='Partial'), dict(B=12_601_632, L=28_339_632)),
    'Full': (dict(type='Full'), dict(T=27_520_698, S=48_838_602, B=86_745_016, L=194_998_164)),
    'Frozen': (dict(type='Frozen'), dict(B=0, L=0)),
}
ON_VIT = {
    'SSF': (SSF, dict(base=205_824, large=544_768)),
    'CVPT': (dict(type='CVPT'), dict(base=10 * 9_216, large=10 * 24_576)),
    'CVPT of 200 prompts': (dict(type='CVPT', num_prompts=200), dict(base=1_843_200, large=4_915_200)),
    'CVPT that learns its attention': (dict(type='CVPT', learn=True), dict(base=92_160 + 28_348_416)),
    'VPT': (dict(type='VPT'), dict(base=10 * 9_216, large=10 * 24_576)),
    'VPT, shallow': (dict(type='VPT', deep=False), dict(base=10 * 768, large=10 * 1_024)),
}
# Parameters, and what per cent that is of the base and of everything.
MONA = {
    'T': (1_408_128, 5.117, 4.868),
    'S': (2_867_328, 5.871, 5.545),
    'B': (3_667_456, 4.228, 4.056),
    'L': (5_267_712, 2.701, 2.630),
}


@cache
def stock_swin(size):
    """A Swin of a published size without storage."""
    return SWINS['mmdet'](**SWIN[size]).to('meta')


@cache
def stock_vit(size):
    with torch.device('meta'):
        return mmpretrain.models.VisionTransformer(size)


def counts(stock, method):
    backbone = copy.deepcopy(stock)
    mmpeft.inject(backbone, method)
    mmpeft.freeze(backbone)
    return mmpeft.count_parameters(backbone)


def rows(table):
    return [(name, size) for name, (_, numbers) in table.items() for size in numbers]


@pytest.mark.parametrize('name, size', rows(ON_SWIN))
def test_a_method_trains_the_published_number_of_parameters_of_swin(name, size):
    method, expected = ON_SWIN[name]
    assert counts(stock_swin(size), method).trainable == expected[size]


@pytest.mark.parametrize('name, size', rows(ON_VIT))
def test_a_method_trains_the_published_number_of_parameters_of_vit(name, size):
    method, expected = ON_VIT[name]
    assert counts(stock_vit(size), method).trainable == expected[size]


@pytest.mark.parametrize('size', MONA)
def test_mona_adds_the_published_number_of_parameters_to_swin_and_trains_no_other(size):
    found = counts(stock_swin(size), dict(type='Mona'))
    assert (found.trainable, round(found.percent_of_base, 3), round(found.percent_of_all, 3)) == MONA[size]
    assert found.adapter == found.trainable and found.frozen == ON_SWIN['Full'][1][size]
