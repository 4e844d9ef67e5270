"""The configs of the study train as they are: the data are tiny, the rest is theirs."""

import json
import shutil
from pathlib import Path

import pytest
from mmengine.config import Config
from tiny import wrapped
from tiny_data import tool, write_data

CONFIGS = sorted(path.stem for path in Path('configs/study').glob('*.py'))


def write_study_data(root: Path) -> Path:
    """The folders that the configs expect, all of them in one."""
    write_data(root)
    for source, target in (('train', 'JPEGImages'), ('train', 'images/training'), ('labels', 'annotations/training')):
        shutil.copytree(root / source, root / target)
    for source, target in (('train', 'images'), ('labelTxt', 'annfiles')):
        shutil.copytree(root / source, root / 'ships/train' / target)
    for path in (root / 'ships/train/images').iterdir():
        path.rename(path.with_suffix('.png'))
    for path in (root / 'ships/train/annfiles').iterdir():
        path.write_text(path.read_text().replace('plane', 'ship'))
    content = json.loads((root / 'annotations/train.json').read_text())
    content['categories'] = [dict(id=i + 1, name=name) for i, name in enumerate(('RBC', 'WBC', 'Platelets'))]
    (root / 'coco').mkdir()
    (root / 'coco/trainval.json').write_text(json.dumps(content))
    return root


@pytest.mark.slow
@pytest.mark.parametrize('name', CONFIGS)
def test_a_config_of_the_study_trains_every_parameter(tmp_path, monkeypatch, name):
    data = write_study_data(tmp_path)
    for variable, root in (('BCCD', data), ('CAMVID', data), ('SHIPS', data / 'ships')):
        monkeypatch.setenv(variable, str(root))
    cfg = Config.fromfile(f'configs/study/{name}.py')
    cfg.model.backbone = wrapped(cfg.model.backbone, dict(type='Full'))
    cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=2)
    cfg.val_dataloader = cfg.val_evaluator = cfg.val_cfg = cfg.heldout = None
    cfg.dump(tmp_path / 'full.py')
    tool('train').main([f'{tmp_path}/full.py', '--work-dir', f'{tmp_path}/work'])
    assert (tmp_path / 'work/iter_2.pth').is_file()
