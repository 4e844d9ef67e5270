import ast
import re
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / 'mmpeft'
ORDER = [
    'version',
    'files',
    'shipped',
    'forms',
    'compiling',
    'operators',
    'private',
    'sites',
    'costs',
    'counting',
    'reading',
    'random_state',
    'methods',
    'start',
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
    'opened_file',
    'checkpoint',
    'bank',
    'soups',
    'layouts',
    'registry',
    'demo',
    'data',
    'mm',
    'commands',
    '__main__',
]
ORDER_IN_MM = [
    'private',
    'checks',
    'together',
    'weights',
    'backbone',
    'runners',
    'hooks',
    'optim',
    'saving',
    'rotated',
    'running',
    'bank',
    'predicting',
    'reports',
    'soups',
    'studies',
]
FREE = ['__init__', 'torchvision_ops']
MM = ('mmengine', 'mmcv', 'mmdet', 'mmseg', 'mmpretrain', 'mmrotate')
LONGEST = 300
FILES = sorted(ROOT.rglob('*.py'))


def layer(path: Path) -> str:
    return path.relative_to(ROOT).with_suffix('').parts[0]


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix('').parts
    return '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)


MODULES = {module_of(path) for path in FILES}


def imports(path: Path) -> set[str]:
    """The modules that a file imports, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names = {f'{node.module}.{alias.name}' for alias in node.names}
            found |= {name if name in MODULES else node.module for name in names}
    return found


def check_order(name: str, importer: str, order: list[str], depth: int) -> None:
    """Whether the part ``depth`` names deep of what is imported stands no later in ``order`` than the importer's."""
    parts, own = name.split('.'), importer.split('.')
    if len(parts) > depth and len(own) > depth and parts[depth] in order:
        assert order.index(parts[depth]) <= order.index(own[depth]), f'{importer} imports {name}'


@pytest.mark.parametrize('path', FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_one_way_and_mm_stays_in_its_folder(path):
    if layer(path) in FREE:
        return
    for name in imports(path):
        scope = name.split('.')[0]
        assert scope not in MM or layer(path) in ('mm', 'registry'), f'{path} imports {name}'
        if scope == 'mmpeft':
            check_order(name, module_of(path), ORDER, 1)
            if name.startswith('mmpeft.mm.') and layer(path) == 'mm':
                check_order(name, module_of(path), ORDER_IN_MM, 2)


def test_no_file_imports_what_imports_it():
    try:
        TopologicalSorter({module_of(path): imports(path) & MODULES for path in FILES}).prepare()
    except CycleError as error:
        pytest.fail(' imports '.join(reversed(error.args[1])))


def test_every_file_has_its_place_in_the_order():
    assert {layer(path) for path in FILES} == {*ORDER, *FREE}
    in_mm = {path.relative_to(ROOT / 'mm').with_suffix('').parts[0] for path in FILES if layer(path) == 'mm'}
    assert in_mm == {*ORDER_IN_MM, '__init__'}


@pytest.mark.parametrize('path', FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_is_longer_than_one_idea_needs(path):
    assert len(path.read_text().splitlines()) <= LONGEST


def test_weights_are_read_and_written_in_one_place():
    reads_safetensors = {path.name for path in FILES if any(name.startswith('safetensors') for name in imports(path))}
    loads = {path.name for path in FILES if re.search(r'\btorch\.load\(', path.read_text())}
    assert (reads_safetensors, loads) == ({'adapter_file.py'}, {'reading.py'})


def test_importing_mmpeft_needs_torch_alone():
    blocked = [*MM, 'safetensors', 'torchvision', 'numpy', 'PIL', 'skimage', 'sklearn', 'matplotlib', 'pycocotools']
    code = 'import sys, torch; before = set(sys.modules); import mmpeft; print(*(set(sys.modules) - before))'
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    loaded = done.stdout.split()
    assert not {name.split('.')[0] for name in loaded} & set(blocked)
    assert 'mmpeft.private' not in loaded
