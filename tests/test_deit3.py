"""DeiT III: a norm that is read twice."""

import pytest
from tiny import HOSTS, image

import mmpeft


def test_deit_3_has_one_norm_in_a_block_and_its_adapter_acts_in_both_places():
    backbone = HOSTS['mmpretrain DeiT3']()
    with pytest.raises(ValueError, match="DeiT3 has no site 'norm2'; its sites: .*norm1"):
        mmpeft.inject(backbone, dict(type='SSF', sites=['norm2']))
    mmpeft.inject(backbone, dict(type='SSF'))
    seen = []
    backbone.layers[0].ln1.register_forward_hook(lambda *_: seen.append(1))
    backbone(image(32, 32))
    assert len(seen) == 2
