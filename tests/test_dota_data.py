"""The configs for DOTA and STAR, on images of 96 px whose patches a splitter has cut."""

import os
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.registry import DATASETS, init_default_scope

from mmpeft.data.splitting import Cut, split_folders
from mmpeft.mm.running.run import test as evaluate
from mmpeft.mm.running.run import train

PARTS = Path('configs/_base_/datasets').resolve()
SAMPLE = Path(os.environ.get('MMPEFT_DATA', 'nowhere')) / 'dota_sample'
CLASS = {'dota_train-val': 'ship', 'dota_server': 'ship', 'star': 'tank'}
DETECTOR = "_base_ = 'mmrotate::rotated_retinanet/rotated-retinanet-rbox-le90_r50_fpn_1x_dota.py'"
SWIN = dict(type='mmdet.SwinTransformer', embed_dims=8, depths=(1, 1, 1, 1), num_heads=(1, 1, 2, 2))


@pytest.fixture
def data(tmp_path):
    return lambda label: write_scenes(tmp_path, label)


def write_scenes(root: Path, label: str) -> Path:
    """Two whole images a split with two objects each, and their patches of 64 px, in the folders of the configs."""
    for split in ('train', 'trainval', 'val', 'test'):
        whole = root / 'whole' / split
        (whole / 'images').mkdir(parents=True)
        (whole / 'labelTxt').mkdir()
        for name in ('P0001', 'P0002'):
            picture = np.full((96, 96, 3), 40, np.uint8)
            picture[40:56, 36:60] = 220
            cv2.imwrite(str(whole / f'images/{name}.png'), picture)
            lines = [f'36 40 60 40 60 56 36 56 {label} 0', f'10 72 26 72 26 80 10 80 {label} 0']
            (whole / f'labelTxt/{name}.txt').write_text('\n'.join(lines) + '\n')
        labels = None if split == 'test' else whole / 'labelTxt'
        split_folders([(whole / 'images', labels)], root / 'patches' / split, Cut(size=64, overlap=32))
    return root


def config(name: str, root: Path) -> Config:
    cfg = Config.fromfile(PARTS / f'{name}.py')
    for split in ('train', 'val', 'test'):
        loader, evaluator = cfg[f'{split}_dataloader'], cfg.get(f'{split}_evaluator')
        if loader is not None:
            loader.dataset.data_root = f'{root}/patches'
        if evaluator is not None and 'ann_dir' in evaluator:
            evaluator.ann_dir = f'{root}/whole/val/labelTxt'
    return cfg


@pytest.mark.parametrize('name, score', [('dota_train-val', 'dota/mAP'), ('star', 'star/mAP')])
@pytest.mark.parametrize('exact', [True, False])
def test_objects_found_where_they_are_score_one_on_whole_images(data, name, score, exact):
    init_default_scope('mmrotate')
    cfg = config(name, data(CLASS[name]))
    if not exact:
        cfg.val_evaluator.ann_dir = None
    assert perfect_score(cfg)[score] == pytest.approx(1)


def perfect_score(cfg: Config) -> dict[str, float]:
    """What the labels score when they are taken for detections."""
    dataset = DATASETS.build(cfg.val_dataloader.dataset)
    evaluator = Evaluator(cfg.val_evaluator)
    evaluator.dataset_meta = dataset.metainfo
    for item in dataset:
        sample = item['data_samples']
        sample.pred_instances = sample.gt_instances.clone()
        sample.pred_instances.scores = sample.gt_instances.labels * 0 + 1.0
        evaluator.process([sample])
    return evaluator.evaluate(len(dataset))


def detector(name: str, root: Path) -> str:
    """A file with a tiny adapted detector over one of the configs."""
    cfg = Config.fromstring(DETECTOR, '.py')
    for key in ('train_dataloader', 'val_dataloader', 'test_dataloader', 'val_evaluator', 'test_evaluator'):
        cfg.pop(key)
    cfg.merge_from_dict(config(name, root).to_dict())
    for split in ('train', 'val', 'test'):
        if cfg[f'{split}_dataloader'] is not None:
            cfg[f'{split}_dataloader'].update(num_workers=0, persistent_workers=False)
            steps = {step.type: step for step in cfg[f'{split}_dataloader'].dataset.pipeline}
            steps['mmdet.Resize'].scale = (64, 64)
    backbone = dict(type='mmpeft.AdaptedBackbone', method=dict(type='Mona'), allow_random_base=True, backbone=SWIN)
    cfg.model.backbone = backbone
    cfg.model.neck.update(in_channels=[8, 16, 32, 64], out_channels=8)
    cfg.model.bbox_head.update(
        in_channels=8, feat_channels=8, stacked_convs=1, num_classes=48 if name == 'star' else 15
    )
    cfg.train_cfg.max_epochs = 1
    cfg.dump(root / 'detector.py')
    return str(root / 'detector.py')


def test_training_on_train_validates_on_merged_images_of_val(data):
    root = data('ship')
    runner = train(detector('dota_train-val', root), work_dir=str(root / 'work'))
    assert runner.val_dataloader.dataset.ann_file.endswith('val/annfiles/')
    scores = runner.message_hub.log_scalars
    assert {'val/dota/mAP', 'val/dota/AP50'} <= set(scores) and not any('patch' in key for key in scores)


def test_star_trains_with_its_48_classes(data):
    root = data('tank')
    runner = train(detector('star', root), work_dir=str(root / 'work'))
    assert 'val/star/mAP' in runner.message_hub.log_scalars
    assert len(runner.train_dataloader.dataset.metainfo['classes']) == 48


def test_star_is_tested_on_the_split_that_the_environment_names(monkeypatch):
    val = Config.fromfile('configs/mona_swin_star.py')
    monkeypatch.setenv('STAR_SPLIT', 'test')
    test = Config.fromfile('configs/mona_swin_star.py')
    for key in ('train_dataloader', 'val_dataloader', 'val_evaluator'):
        assert test[key] == val[key]
    for cfg, split in ((val, 'val'), (test, 'test')):
        dataset = cfg.test_dataloader.dataset
        files = [dataset.ann_file, dataset.data_prefix.img_path, cfg.test_evaluator.ann_dir]
        assert files == [f'{split}/annfiles/', f'{split}/images/', f'data/STAR/{split}/labelTxt/']


def test_for_the_server_trainval_trains_and_testing_writes_the_zip_file(data):
    root = data('ship')
    path = detector('dota_server', root)
    runner = train(path, work_dir=str(root / 'work'))
    assert runner.train_dataloader.dataset.ann_file.endswith('trainval/annfiles/')
    options = {'test_evaluator.outfile_prefix': str(root / 'Task1')}
    assert evaluate(path, str(root / 'work/epoch_1.pth'), work_dir=str(root / 'work'), cfg_options=options) == {}
    with zipfile.ZipFile(root / 'Task1.zip') as archive:
        assert len(archive.namelist()) == 15 and 'Task1_plane.txt' in archive.namelist()


@pytest.mark.skipif(not SAMPLE.is_dir(), reason='MMPEFT_DATA names no folder with dota_sample')
@pytest.mark.parametrize('exact', [True, False])
def test_objects_of_real_images_found_where_they_are_score_one(tmp_path, exact):
    init_default_scope('mmrotate')
    split_folders([(SAMPLE / 'images', SAMPLE / 'labelTxt')], tmp_path / 'patches/val', Cut(size=512, overlap=200))
    cfg = config('dota_train-val', tmp_path)
    cfg.val_evaluator.ann_dir = str(SAMPLE / 'labelTxt') if exact else None
    cfg.val_evaluator.iou_thr = 0.7  # labels of neighbours overlap by more than 0.1, and NMS would take them
    assert perfect_score(cfg)['dota/mAP'] == pytest.approx(1)
