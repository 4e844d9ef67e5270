"""A soup of rotated detectors, from the labels of whole images to the score of the soup on them."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from test_dota_data import detector, write_scenes
from tiny_data import tool

from mmpeft.checkpoint import read_adapters
from mmpeft.mm.checks import register_library


def write_detector(root: Path) -> Path:
    """A tiny detector on a pretrained Swin, and its patches, of which those of one image are held out."""
    path = Path(detector('dota_train-val', write_scenes(root, 'ship')))
    patches = root / 'patches'
    part = ['--part', 'train=train/annfiles:train/images', '--fraction', '0.5']
    tool('prepare_data').main(['holdout', 'dota', str(patches), str(patches / 'soup'), *part])
    cfg = Config.fromfile(path)
    register_library('mmrotate')
    torch.manual_seed(0)
    base = MODELS.build(cfg.model.backbone.backbone)
    torch.save({f'backbone.{name}': tensor for name, tensor in base.state_dict().items()}, root / 'base.pth')
    del cfg.model.backbone.allow_random_base
    cfg.model.backbone.backbone.init_cfg = dict(type='Pretrained', checkpoint=f'{root}/base.pth')
    cfg.train_dataloader.dataset.ann_file = 'soup/train/'
    cfg.heldout = dict(ann_file='soup/heldout/', evaluator=dict(ann_dir=f'{root}/whole/train/labelTxt'))
    cfg.train_cfg.update(max_epochs=30, val_interval=30)
    cfg.default_hooks.checkpoint.interval = 30
    cfg.optim_wrapper.optimizer = dict(type='AdamW', lr=0.01)
    cfg.param_scheduler = []
    cfg.dump(path)
    return path


@pytest.mark.slow
def test_runs_of_a_rotated_detector_are_swept_mixed_and_scored_on_whole_images(tmp_path):
    config, out = str(write_detector(tmp_path)), tmp_path / 'sweep'
    tool('sweep').main([config, '--runs', '2', '--out', str(out), '--lr', '0.01', '0.014', '--launcher', 'print'])
    runs = [str(out / f'run_0{number}') for number in range(2)]
    for run in runs:
        tool('train').main([f'{run}.py', '--work-dir', run])
    for recipe in ('greedy', 'learned'):
        tool('soup').main([recipe, config, *runs, '--out', f'{out}/{recipe}.safetensors', '--epochs', '1'])
        assert read_adapters(out / f'{recipe}.safetensors').info.soup
        assert '| candidate | dota/mAP |' in (out / f'{recipe}.md').read_text()
    with pytest.raises(SystemExit, match='A temperature needs a segmentor .* RetinaNet is none'):
        tool('soup').main(['learned', config, *runs, '--out', f'{out}/hot.safetensors', '--temperature'])

    tool('score').main([config, f'{out}/greedy.safetensors', *runs, '--ensemble', *runs, '--out', f'{out}/score.md'])
    head, _, *rows = [line.split('|')[1:-1] for line in (out / 'score.md').read_text().splitlines()]
    assert [cell.strip() for cell in head] == ['dota/mAP', 'heldout', 'test'] and len(rows) == 4
    heldout, test = [[float(score) for score in column] for column in zip(*(row[1:] for row in rows), strict=True)]
    assert heldout[0] >= max(heldout[1:3]) and min(heldout + test) > 0
