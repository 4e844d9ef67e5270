import logging

import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope, init_default_scope

# Tiny tensors: a second thread only waits for the first.
torch.set_num_threads(1)


@pytest.fixture(scope='session', autouse=True)
def _plain_config_text():
    """Leave out the pretty-printing of config dumps, which takes most of the time of a tiny run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('yapf.yapflib.yapf_api.FormatCode', lambda text, **_: (text, False))
        yield


@pytest.fixture(autouse=True)
def _fresh_state():
    """One seed and one scope for every test, whatever a test before it left behind."""
    torch.manual_seed(0)
    DefaultScope._instance_dict.clear()
    init_default_scope('mmdet')


@pytest.fixture
def mm_log(caplog):
    """What mmengine's current logger says, which does not propagate."""
    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    caplog.set_level(logging.INFO)
    yield caplog
    logger.removeHandler(caplog.handler)
