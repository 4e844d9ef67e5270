"""`import torchvision` works beside any torch, and a torchvision that works is not touched."""

import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / 'mmpeft' / 'torchvision_ops.py'

# A torchvision in miniature: the order of its imports and the one call that fails are those of the real package.
WITHOUT_OPERATORS = {
    '__init__.py': 'from . import extension\nfrom . import _meta_registrations\n',
    'extension.py': 'def _has_ops():\n    return False\n',
    '_meta_registrations.py': (
        'import torch\n\n\n@torch.library.register_fake("torchvision::nms")\ndef nms(dets, scores, iou_threshold):\n'
        '    return dets\n\n\nrun_once = True\n'
    ),
}
WITH_OPERATORS = {
    **WITHOUT_OPERATORS,
    'extension.py': 'def _has_ops():\n    return True\n',
    '_meta_registrations.py': 'import sys\n\ntorch_was_imported = "torch" in sys.modules\n',
}

MEND = f"""
import importlib.util, sys
sys.meta_path[:] = [f for f in sys.meta_path if f.__module__ != '_mmpeft_torchvision']  # the hook of .venv, if any
spec = importlib.util.spec_from_file_location('torchvision_ops', {str(SOURCE)!r})
ops = importlib.util.module_from_spec(spec)
spec.loader.exec_module(ops)
"""


def run(code, path=None):
    """What a fresh interpreter prints when it runs the code."""
    if path:
        code = f'import sys; sys.path.insert(0, {str(path)!r})\n{code}'
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def fake(tmp_path):
    def write(files):
        (tmp_path / 'torchvision').mkdir()
        for name, text in files.items():
            (tmp_path / 'torchvision' / name).write_text(text)
        return tmp_path

    return write


def test_stock_libraries_import_without_mmpeft():
    code = 'import mmdet.models, mmpretrain.models, mmrotate.models, sys\nprint("mmpeft" in sys.modules)'
    assert run(code).endswith('False')


def test_stock_libraries_import_after_mmpeft_where_no_hook_is_installed():
    assert run(MEND + 'import mmpeft.mm, mmrotate.models\nprint("done")').endswith('done')


def test_starting_python_imports_no_torch():
    assert run('import sys; print("torch" in sys.modules, "torchvision" in sys.modules)') == 'False False'


def test_installing_the_hook_imports_nothing():
    code = MEND + 'before = set(sys.modules)\nops.mend_torchvision()\nprint(set(sys.modules) - before)'
    assert run(code) == 'set()'


def test_with_the_hook_the_import_works(fake):
    code = MEND + 'ops.mend_torchvision()\nimport torchvision\nprint(torchvision._meta_registrations.run_once)'
    assert run(code, fake(WITHOUT_OPERATORS)) == 'True'


def test_the_import_fails_without_the_hook_and_works_once_it_is_there(fake):
    code = MEND + (
        'try:\n    import torchvision\nexcept RuntimeError as error:\n    print(error)\nops.mend_torchvision()\n'
        'import torchvision\nprint(torchvision._meta_registrations.run_once)'
    )
    assert run(code, fake(WITHOUT_OPERATORS)) == 'operator torchvision::nms does not exist\nTrue'


def test_operators_that_somebody_declared_are_kept(fake):
    code = MEND + (
        'import torch\nlibrary = torch.library.Library("torchvision", "DEF")\n'
        'library.define(ops._SCHEMAS["nms"])\nops.mend_torchvision()\n'
        'import torchvision\nprint(torchvision._meta_registrations.run_once)'
    )
    assert run(code, fake(WITHOUT_OPERATORS)) == 'True'


def test_a_torchvision_that_works_is_left_alone(fake):
    code = MEND + (
        'ops.mend_torchvision()\nimport torchvision\nprint(torchvision._meta_registrations.torch_was_imported)'
    )
    assert run(code, fake(WITH_OPERATORS)) == 'False'


def test_another_package_of_that_name_is_left_alone(fake):
    code = MEND + 'ops.mend_torchvision()\nimport torchvision._meta_registrations\nprint("torch" in sys.modules)'
    assert run(code, fake({'__init__.py': '', '_meta_registrations.py': ''})) == 'False'


def test_the_hook_is_installed_once():
    code = (
        MEND + 'n = len(sys.meta_path)\nops.mend_torchvision()\nops.mend_torchvision()\nprint(len(sys.meta_path) - n)'
    )
    assert run(code) == '1'
