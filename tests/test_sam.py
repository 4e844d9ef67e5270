"""SAM's encoder: tokens in a map, attention in padded windows."""

import copy

import pytest
import torch
from tiny import MONA, image, sam

import mmpeft
from mmpeft.fingerprint import base_names


def test_adapters_see_the_tokens_of_the_map_row_by_row():
    backbone, seen = sam(), []
    mmpeft.inject(backbone, dict(MONA, sites=['after_ffn'], blocks=r'layers\.[01]$'))
    for adapter in (module for module in backbone.modules() if isinstance(module, mmpeft.methods.Mona)):
        adapter.register_forward_hook(lambda _, args, out: seen.append((args[1], out)))
    backbone.layers[1].register_forward_hook(lambda _, args, out: seen.append(out))
    backbone(image(40, 48))
    (first, _), (second, tokens), out = seen
    assert first == second == (5, 6)
    assert torch.equal(out, tokens.unflatten(1, (5, 6)))


@pytest.mark.parametrize('size', [(32, 32), (40, 48), (24, 88)])
def test_windows_with_and_without_padding_are_those_of_the_stock_block(size):
    plain = sam()
    backbone, x = copy.deepcopy(plain), image(*size)
    mmpeft.inject(backbone, dict(type='Partial', k=1), recompute_ffn=True)
    assert all(torch.equal(ours, stock) for ours, stock in zip(backbone(x), plain(x), strict=True))


def test_the_tables_of_places_which_a_task_resizes_are_not_known_again():
    backbone = sam()
    mmpeft.inject(backbone, MONA)
    names = base_names(backbone)
    assert (
        not any('rel_pos_' in name or 'pos_embed' in name for name in names) and 'channel_reduction.0.weight' in names
    )
