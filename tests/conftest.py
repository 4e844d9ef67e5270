import pytest
import torch
from mmengine.registry import DefaultScope, init_default_scope
from tiny import RARELY, forget_runs

# Tiny tensors: a second thread only waits for the first.
torch.set_num_threads(1)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items) -> None:
    """Let the tests of a backbone in ``RARELY`` be slow ones, except one method of the contract and its wiring."""
    for item in items:
        values = item.callspec.params if hasattr(item, 'callspec') else {}
        if not any(isinstance(value, str) and value in RARELY for value in values.values()):
            continue
        wiring = item.module.__name__ == 'test_hosts' and 'computes_what_the_stock' in item.name
        if not wiring and (item.module.__name__, values.get('method')) != ('test_contract', 'LoRA'):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope='session', autouse=True)
def _plain_config_text():
    """Leave out the pretty-printing of config dumps, which takes most of the time of a tiny run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('yapf.yapflib.yapf_api.FormatCode', lambda text, **_: (text, False))
        yield


@pytest.fixture(autouse=True)
def _fresh_state():
    """One seed and one scope for every test, and nothing of the runs before it."""
    torch.manual_seed(0)
    forget_runs()
    DefaultScope._instance_dict.clear()
    init_default_scope('mmdet')
