"""The pages of docs/: their configs, the tutorial, the reference and the site."""

import importlib.util
import inspect
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from tiny_data import write_data

import mmpeft
from mmpeft.mm.running.checking import check_config

DOCS = Path('docs').resolve()
TUTORIAL = DOCS / 'tutorial.ipynb'


def has(*packages: str):
    """Skip where a package of the extra ``docs`` is missing."""
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    return pytest.mark.skipif(bool(missing), reason=f"{', '.join(missing)}: pip install 'mmpeft[docs]', or make docs")


def config_of(page: str) -> str:
    return re.search(r'```python\n(_base_.*?)```', (DOCS / page).read_text(), re.DOTALL)[1]


def test_the_config_of_the_page_on_segmentation_fits_its_layout(tmp_path, monkeypatch):
    made = write_data(tmp_path / 'made')
    for part in ('train', 'val'):
        shutil.copytree(made / 'train', tmp_path / f'data/town/images/{part}')
        shutil.copytree(made / 'labels', tmp_path / f'data/town/labels/{part}')
    monkeypatch.chdir(tmp_path)
    Path('town.py').write_text(config_of('segmentation.md'))
    assert [*check_config('town.py')][-1] == 'No problems.'


def test_the_config_of_the_page_on_rotated_boxes_fits_its_layout(tmp_path, monkeypatch):
    lines = ['8 8 24 8 24 24 8 24 ship 0', '32 32 56 32 56 40 32 40 harbour 0', '']
    for folder in ('split_ships/train/annfiles', 'split_ships/val/annfiles', 'ships/val/labelTxt'):
        (tmp_path / 'data' / folder).mkdir(parents=True)
        (tmp_path / 'data' / folder / 'P1__1024__0___0.txt').write_text('\n'.join(lines))
    for part in ('train', 'val'):
        (tmp_path / f'data/split_ships/{part}/images').mkdir()
        picture = np.full((64, 64, 3), 40, np.uint8)
        cv2.imwrite(str(tmp_path / f'data/split_ships/{part}/images/P1__1024__0___0.png'), picture)
    monkeypatch.chdir(tmp_path)
    Path('ships.py').write_text(config_of('rotated.md'))
    assert [*check_config('ships.py')][-1] == 'No problems.'


@pytest.mark.parametrize('module', [mmpeft, mmpeft.methods, mmpeft.hosts], ids=lambda module: module.__name__)
def test_every_public_name_has_a_docstring(module):
    public = {name: getattr(module, name) for name in module.__all__}
    assert [name for name, thing in public.items() if callable(thing) and not inspect.getdoc(thing)] == []
    assert inspect.getdoc(module)


@pytest.mark.slow
@has('mkdocs', 'material', 'mkdocstrings')
def test_the_site_builds_strictly_and_has_every_public_name(tmp_path):
    command = [sys.executable, '-m', 'mkdocs', 'build', '--strict', '--site-dir', str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    reference = ''.join(path.read_text() for path in (tmp_path / 'api').glob('*.html'))
    names = [f'mmpeft.{name}' for name in mmpeft.__all__ if name not in ('hosts', 'methods')]
    names += ['mmpeft.methods.Mona', 'mmpeft.AdaptedBackbone', 'mmpeft.MonaHook', 'mmpeft.MergedDOTAMetric']
    assert [name for name in names if not re.search(rf'>\s*{re.escape(name)}\s*<', reference)] == []
    assert (tmp_path / 'source/configs/mona_swin_coco.py').is_file()


@pytest.mark.slow
@has('mkdocs')
def test_a_public_name_without_a_docstring_ends_the_build():
    spec = importlib.util.spec_from_file_location('site_of_the_docs', DOCS / 'site.py')
    site = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(site)
    with pytest.raises(site.PluginError, match=r'mmpeft\.silent is public and has no docstring'):
        site._reference_of('title', 'intro', {'mmpeft.silent': type('Silent', (), {})})


@pytest.mark.slow
@has('nbclient', 'ipykernel')
def test_the_tutorial_runs(tmp_path, monkeypatch):
    import nbformat
    from nbclient import NotebookClient

    monkeypatch.setenv('PATH', f'{Path(sys.executable).parent}:{os.environ["PATH"]}')
    monkeypatch.setenv('OMP_NUM_THREADS', '1')
    notebook, place = nbformat.read(TUTORIAL, as_version=4), dict(metadata=dict(path=tmp_path))
    NotebookClient(notebook, timeout=1800, kernel_name='python3', resources=place).execute()
    said = str([cell.get('outputs') for cell in notebook.cells])  # a command that fails ends no cell
    assert 'error: ' not in said and 'Traceback' not in said
    assert (tmp_path / 'work_dirs/found.jpg').is_file()


def test_the_outputs_of_the_tutorial_are_there_and_small():
    text = TUTORIAL.read_text()
    assert '"image/jpeg"' in text and TUTORIAL.stat().st_size < 150_000
    assert '/tmp/' not in text
