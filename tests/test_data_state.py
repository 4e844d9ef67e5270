"""Scores that were kept are of the data as they are."""

import pytest
import torch
from mmengine.config import Config

from mmpeft.mm.soups.scoring import _context

SETS = {
    'COCO': dict(ann_file='ann.json', data_prefix=dict(img='img')),
    'label maps of mmseg': dict(data_prefix=dict(img_path='img', seg_map_path='ann')),
    'label files of DOTA': dict(ann_file='ann/', data_prefix=dict(img_path='img')),
    'VOC': dict(ann_file='VOC/list.txt', data_prefix=dict(sub_data_root='VOC')),
    'VOC in one folder': dict(ann_file='list.txt', data_root='VOC', data_prefix=dict(sub_data_root='')),
}
CHANGES = {
    'COCO': (['ann.json'], ['img/a.jpg', 'img/deep/b.png']),
    'label maps of mmseg': (['ann/a.png', 'ann/deep/b.txt'], ['img/a.jpg']),
    'label files of DOTA': (['ann/deep/b.txt'], ['img/deep/b.png']),
    'VOC': (['VOC/list.txt', 'VOC/Annotations/a.xml'], ['VOC/a.jpg']),
    'VOC in one folder': (['VOC/list.txt', 'VOC/Annotations/a.xml'], ['VOC/a.jpg']),
}
FILES = {'other.txt', *(path for changes in CHANGES.values() for paths in changes for path in paths)}


def key(dataset, **evaluator):
    cfg = Config(
        dict(
            model=dict(type='x'),
            val_dataloader=dict(dataset=dict(type='RepeatDataset', dataset=dataset)),
            val_evaluator=[dict(type='y', **evaluator)],
        )
    )
    return _context(cfg, torch.nn.Linear(1, 1))


@pytest.fixture
def root(tmp_path):
    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text('old')
    return tmp_path


@pytest.mark.parametrize('name', SETS)
def test_a_change_of_labels_or_images_asks_for_new_scores(name, root):
    dataset = dict(SETS[name], type='x', data_root=str(root / SETS[name].get('data_root', '')))
    before = key(dataset)
    assert key(dataset) == before
    labels, images = CHANGES[name]
    for path in labels + images:
        (root / path).write_text('new' if path in labels else 'longer')
        assert key(dataset) != before, path
        before = key(dataset)
    (root / 'other.txt').write_text('new')
    assert key(dataset) == before


def test_a_change_of_what_an_evaluator_reads_asks_for_new_scores(root):
    dataset = dict(type='x', data_root=str(root))
    for option, place, file in (('ann_file', 'ann.json', 'ann.json'), ('ann_dir', 'ann', 'ann/deep/b.txt')):
        before = key(dataset, **{option: str(root / place), 'outfile_prefix': str(root / 'img')})
        (root / file).write_text('new')
        (root / 'img/new.json').write_text(option)
        assert key(dataset, **{option: str(root / place), 'outfile_prefix': str(root / 'img')}) != before
        (root / file).write_text('old')
        assert key(dataset, **{option: str(root / place), 'outfile_prefix': str(root / 'img')}) == before


def test_data_on_another_machine_are_told_by_their_names():
    assert key(dict(type='x', data_root='s3://bucket', ann_file='a')) != key(dict(type='x', data_root='s3://bucket'))
