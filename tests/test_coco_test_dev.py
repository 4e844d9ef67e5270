"""COCO test-dev: json files for its server, from images without labels."""

import json
import re
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from tiny_data import CLASSES, main_options, write_data

from mmpeft.mm.checks import register_library
from mmpeft.mm.running.run import test as evaluate

CONFIGS = Path('configs').resolve()
PART = CONFIGS / '_base_/datasets/coco_test-dev.py'


def write_config(folder: Path, name: str = 'mona_swin_coco') -> Path:
    """Write the file that the part's header shows, over the config ``name``."""
    lines = re.findall(r'^#   (\S+ = .+)$', PART.read_text(), re.M)
    path = folder / 'test-dev.py'
    path.write_text('\n'.join(lines).replace("'./", f"'{CONFIGS}/").replace('mona_swin_coco', name))
    return path


@pytest.mark.parametrize('name', ['mona_swin_coco', 'mona_dinov2_coco'])
def test_the_file_of_the_header_tests_the_images_of_test_dev_alone(name, tmp_path):
    ours, plain = Config.fromfile(write_config(tmp_path, name)), Config.fromfile(CONFIGS / f'{name}.py')
    images = 'annotations/image_info_test-dev2017.json'
    assert ours.test_dataloader.dataset.ann_file == images
    assert ours.test_dataloader.dataset.data_prefix == dict(img='test2017/')
    files = dict(ann_file=f'data/coco/{images}', outfile_prefix='work_dirs/test-dev/results')
    assert ours.test_evaluator == plain.test_evaluator | files | dict(format_only=True)
    for key in ('model', 'train_dataloader', 'val_dataloader', 'val_evaluator', 'optim_wrapper'):
        assert ours[key] == plain[key]


def test_boxes_and_masks_are_written_and_nothing_is_scored(tmp_path, monkeypatch):
    config = write_config(tmp_path)
    root = write_data(tmp_path / 'data/coco')
    labels = json.loads((root / 'annotations/train.json').read_text())
    del labels['annotations']
    (root / 'annotations/image_info_test-dev2017.json').write_text(json.dumps(labels))
    (root / 'train').rename(root / 'test2017')
    options = {key: value for key, value in main_options(root).items() if 'ann_file' not in key and 'img' not in key}
    options |= {'model.test_cfg.rcnn.score_thr': 0.0, 'model.test_cfg.rcnn.max_per_img': 3}
    checkpoint = tmp_path / 'random.pth'
    torch.save(dict(state_dict=built(config, options).state_dict()), checkpoint)
    monkeypatch.chdir(tmp_path)
    assert evaluate(str(config), str(checkpoint), cfg_options=options) == {}
    for kind, content in (('bbox', 'bbox'), ('segm', 'segmentation')):
        found = json.loads(Path(f'work_dirs/test-dev/results.{kind}.json').read_text())
        assert {item['image_id'] for item in found} == {0, 1, 2, 3} and len(found) == 4 * 3
        assert {item['category_id'] for item in found} <= {1, 2} == set(range(1, len(CLASSES) + 1))
        assert all(content in item and 'score' in item for item in found)


def built(config: Path, options: dict):
    cfg = Config.fromfile(config)
    cfg.merge_from_dict(options)
    register_library('mmdet')
    init_default_scope('mmdet')
    return MODELS.build(cfg.model)
