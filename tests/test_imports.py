import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / 'mmpeft'
ORDER = [
    'files',
    'sites',
    'costs',
    'reading',
    'random_state',
    'start',
    'methods',
    'hosts',
    'measuring',
    'freeze',
    'report',
    'inject',
    'plain',
    'merge',
    'fingerprint',
    'contents',
    'adapter_file',
    'checkpoint',
    'bank',
    'soups',
    'layouts',
    'registry',
    'demo',
    'data',
    'mm',
]
FREE = ['__init__', 'torchvision_ops']
MM = ('mmengine', 'mmcv', 'mmdet', 'mmseg', 'mmpretrain', 'mmrotate')
FILES = sorted(ROOT.rglob('*.py'))


def layer(path: Path) -> str:
    return path.relative_to(ROOT).with_suffix('').parts[0]


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module} | {f'{node.module}.{alias.name}' for alias in node.names}
    return found


@pytest.mark.parametrize('path', FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_one_way_and_mm_stays_in_its_folder(path):
    if layer(path) in FREE:
        return
    for name in imports(path):
        scope, *rest = name.split('.')
        assert scope not in MM or layer(path) in ('mm', 'registry'), f'{path} imports {name}'
        if scope == 'mmpeft' and rest and rest[0] in ORDER:
            assert ORDER.index(rest[0]) <= ORDER.index(layer(path)), f'{path} imports {name}'


def test_every_file_has_its_place_in_the_order():
    assert {layer(path) for path in FILES} == {*ORDER, *FREE}


def test_importing_mmpeft_needs_torch_alone():
    blocked = [*MM, 'safetensors', 'torchvision', 'numpy', 'PIL', 'skimage', 'sklearn', 'matplotlib', 'pycocotools']
    code = 'import sys, torch; before = set(sys.modules); import mmpeft; print(*(set(sys.modules) - before))'
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert not {name.split('.')[0] for name in done.stdout.split()} & set(blocked)
