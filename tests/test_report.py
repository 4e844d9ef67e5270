from tiny import MONA, swin

import mmpeft
from mmpeft.report import report


def test_the_report_tells_per_stage_what_was_inserted_and_what_trains():
    backbone = swin()
    mmpeft.inject(backbone, dict(MONA, blocks=r'stages\.[13]'))
    mmpeft.freeze(backbone)
    parts = {part.name: part for part in report(backbone).parts}
    assert list(parts) == ['patch_embed', *(f'stages.{i}' for i in range(4)), *(f'norm{i}' for i in range(4))]
    assert parts['stages.0'].adapters == () and parts['stages.0'].counts.trainable == 0
    assert parts['stages.1'].adapters == (('Mona', 'after_attn', 2), ('Mona', 'after_ffn', 2))
    assert parts['stages.3'].counts.trainable == parts['stages.3'].counts.adapter > 0
    assert sum(part.counts.total for part in parts.values()) == report(backbone).counts.total


def test_the_report_prints_as_a_table():
    backbone = swin()
    report = mmpeft.inject(backbone, MONA)
    lines = str(report).splitlines()
    assert lines[0].split() == ['part', 'adapters', 'trainable', 'frozen', '%', 'of', 'base', '%', 'of', 'all']
    assert lines[-1].split()[0] == 'backbone' and len({len(line) for line in lines}) == 1
    assert any('2 Mona after_attn, 2 Mona after_ffn' in line for line in lines)
