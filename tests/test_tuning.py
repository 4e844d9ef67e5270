import pytest
from tiny import LIBRARIES, MONA, swin

import mmpeft


def trained(backbone, method):
    mmpeft.inject(backbone, method)
    mmpeft.freeze(backbone)
    return {name for name, p in backbone.named_parameters() if p.requires_grad}


@pytest.mark.parametrize('library', LIBRARIES)
def test_each_baseline_trains_its_kind_of_parameter(library):
    assert all(name.endswith('bias') for name in trained(swin(library), dict(type='BitFit')))
    norms = trained(swin(library), dict(type='NormTuning'))
    assert 'norm3.weight' in norms and not any('ffn' in name or 'attn' in name for name in norms)
    assert all(name.startswith('stages.3.blocks.0.') for name in trained(swin(library), dict(type='Partial')))
    assert len(trained(swin(library), dict(type='Full'))) == len(list(swin(library).parameters()))


def test_partial_counts_blocks_from_the_end_across_stages():
    names = trained(swin(), dict(type='Partial', k=3))
    assert {'.'.join(name.split('.')[:4]) for name in names} == {
        'stages.1.blocks.1',
        'stages.2.blocks.0',
        'stages.3.blocks.0',
    }


def test_a_tuned_base_and_adapters_train_together():
    names = trained(swin(), [MONA, dict(type='NormTuning', blocks=r'stages\.3')])
    assert 'stages.3.blocks.0.norm1.weight' in names and 'stages.2.blocks.0.norm1.weight' not in names
    assert 'stages.0.blocks.0.adapters.after_attn.up.weight' in names
    assert 'stages.0.blocks.0.norm1.weight' not in names


def test_a_tuned_norm_does_not_mean_the_norm_of_an_adapter_of_another_stage():
    names = trained(swin(), [dict(MONA, blocks=r'stages\.0'), dict(type='BitFit')])
    assert 'stages.0.blocks.0.adapters.after_attn.gamma' in names and 'stages.0.blocks.0.norm1.bias' in names


REFUSED = {
    'too many blocks': (dict(type='Partial', k=6), 'cannot train the last 6 of 5 blocks'),
    'no block': (dict(type='Partial', k=0), 'needs k of at least 1, got 0'),
    'sites': (dict(type='BitFit', sites=['qkv']), "BitFit has no option 'sites'; its options: blocks, tables"),
    'pattern': (dict(type='NormTuning', blocks='layers'), "NormTuning finds no parameter to train in blocks 'layers'"),
}


@pytest.mark.parametrize('case', REFUSED)
def test_what_does_not_fit_is_refused(case):
    method, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        mmpeft.inject(swin(), method)
