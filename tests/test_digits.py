import hashlib
import json
import multiprocessing
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO

from mmpeft.demo.digits import COUNTS, DigitsError, prepare_digits
from mmpeft.demo.scenes import CLASSES, PHOTOS, SIZE, make_scenes, samples

FEW = {'train': 4, 'val': 3}


@pytest.fixture(scope='module')
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp('made') / 'digits'
    prepare_digits(root, FEW)
    return root


@pytest.fixture
def root(tmp_path):
    prepare_digits(tmp_path / 'digits', FEW)
    return tmp_path / 'digits'


def hashes(root):
    return {
        str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in root.rglob('*') if p.is_file()
    }


def test_two_runs_write_the_same_bytes(made, root):
    assert hashes(made) == hashes(root)


def test_another_seed_gives_other_scenes():
    first, other = (next(make_scenes('train', 1, seed)) for seed in (0, 1))
    assert not np.array_equal(first.image, other.image)


def test_a_scene_does_not_depend_on_how_many_there_are():
    *_, last = make_scenes('val', 3)
    *_, third, _ = make_scenes('val', 4)
    assert np.array_equal(last.image, third.image)


def test_train_and_val_share_neither_digits_nor_photographs():
    assert set(samples('train')).isdisjoint(samples('val'))
    assert set(PHOTOS['train']).isdisjoint(PHOTOS['val'])
    for split in ('train', 'val'):
        used = {i.sample for scene in make_scenes(split, 20) for i in scene.instances}
        assert used <= set(samples(split)) and len(used) > 40


def test_an_unknown_split_is_refused():
    with pytest.raises(ValueError, match="no split 'test'; there are train, val"):
        next(make_scenes('test', 1))


def test_digits_lie_inside_the_image_and_do_not_overlap():
    for scene in make_scenes('train', 20):
        assert scene.image.shape == (SIZE, SIZE, 3) and scene.instances
        assert np.sum([i.mask for i in scene.instances], axis=0).max() == 1


@pytest.mark.parametrize('split', FEW)
def test_coco_reads_masks_boxes_and_areas_that_agree(made, split):
    coco = COCO(made / 'annotations' / f'{split}.json')
    assert [c['name'] for c in coco.loadCats(coco.getCatIds())] == list(CLASSES)
    assert len(coco.imgs) == FEW[split] and len(coco.anns) > FEW[split]
    scenes = list(make_scenes(split, FEW[split]))
    for number, scene in enumerate(scenes):
        assert (made / split / coco.imgs[number]['file_name']).is_file()
        for annotation, instance in zip(coco.imgToAnns[number], scene.instances, strict=True):
            mask = coco.annToMask(annotation)
            assert np.array_equal(mask, instance.mask) and mask.sum() == annotation['area'] > 0
            left, top, width, height = annotation['bbox']
            assert mask[top : top + height, left : left + width].sum() == annotation['area']
            assert mask[top].any() and mask[top + height - 1].any()
            assert mask[:, left].any() and mask[:, left + width - 1].any()
            assert CLASSES[annotation['category_id'] - 1] == CLASSES[instance.label]


def test_the_manifest_counts_and_names_every_file(made):
    manifest = json.loads((made / 'manifest.json').read_text())
    assert {split: part['images'] for split, part in manifest['counts'].items()} == FEW
    assert manifest['files'] == {name: digest for name, digest in hashes(made).items() if name != 'manifest.json'}
    assert manifest['counts']['val']['instances'] == len(
        json.loads((made / 'annotations' / 'val.json').read_text())['annotations']
    )


def test_whole_data_are_checked_and_left_as_they_are(root):
    before = {p: p.stat().st_mtime_ns for p in root.rglob('*')}
    assert prepare_digits(root, FEW)['made'] == 0
    assert before == {p: p.stat().st_mtime_ns for p in root.rglob('*')}


@pytest.mark.parametrize(
    'damage',
    [
        lambda root: (root / 'train' / '000001.jpg').unlink(),
        lambda root: (root / 'val' / '000000.jpg').write_bytes(b'cut'),
        lambda root: (root / 'annotations' / 'train.json').write_text('{}'),
    ],
)
def test_damaged_data_are_mended(root, damage):
    whole = hashes(root)
    damage(root)
    assert hashes(root) != whole
    assert prepare_digits(root, FEW)['made'] > 0
    assert hashes(root) == whole


def test_a_folder_with_other_files_is_refused_and_left_alone(tmp_path):
    (tmp_path / 'mine.txt').write_text('mine')
    with pytest.raises(DigitsError, match='is not the digits data set.*data_root'):
        prepare_digits(tmp_path, FEW)
    assert [p.name for p in tmp_path.iterdir()] == ['mine.txt']


def test_digits_of_other_settings_are_refused(root):
    with pytest.raises(DigitsError, match="'seed': 0.*'seed': 1.*was asked for"):
        prepare_digits(root, FEW, seed=1)


@pytest.mark.parametrize('text', ['{', '[]', '{"settings": {}}'])
def test_an_unreadable_manifest_is_refused(root, text):
    (root / 'manifest.json').write_text(text)
    with pytest.raises(DigitsError, match='manifest.json cannot be read'):
        prepare_digits(root, FEW)


def test_an_interrupted_run_leaves_nothing(tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr('mmpeft.demo.digits.json.dumps', stop)
    with pytest.raises(KeyboardInterrupt):
        prepare_digits(tmp_path / 'digits', FEW)
    assert list(tmp_path.iterdir()) == []


def test_two_processes_may_make_the_data_at_once(tmp_path, made):
    context = multiprocessing.get_context('spawn')
    both = [context.Process(target=prepare_digits, args=(tmp_path / 'digits', FEW)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    assert hashes(tmp_path / 'digits') == hashes(made)
    assert [p.name for p in tmp_path.iterdir()] == ['digits']


def test_the_data_set_class_makes_its_data_and_finds_them(tmp_path, monkeypatch):
    from mmengine.registry import DATASETS, init_default_scope

    monkeypatch.setattr('mmpeft.demo.digits.COUNTS', FEW)
    init_default_scope('mmdet')
    config = dict(type='mmpeft.DigitsDataset', data_root=f'{tmp_path}/digits', ann_file='annotations/val.json')
    dataset = DATASETS.build(config | dict(data_prefix=dict(img='val/'), pipeline=[], test_mode=True))
    assert len(dataset) == FEW['val'] and dataset.metainfo['classes'] == CLASSES
    info = dataset.get_data_info(0)
    scene = next(make_scenes('val', 1))
    assert Path(info['img_path']).is_file()
    assert [i['bbox_label'] for i in info['instances']] == [i.label for i in scene.instances]


def test_the_default_is_300_and_100_images():
    assert COUNTS == {'train': 300, 'val': 100}


def test_the_tools_have_the_data_made_before_they_look_for_files(tmp_path, monkeypatch):
    from mmengine.config import Config

    from mmpeft.mm.checks import check_data

    monkeypatch.setattr('mmpeft.demo.digits.COUNTS', FEW)
    loader = dict(
        dataset=dict(
            type='mmpeft.DigitsDataset',
            data_root=f'{tmp_path}/digits',
            ann_file='annotations/train.json',
            data_prefix=dict(img='train'),
        )
    )
    check_data(Config(dict(train_dataloader=loader)), 'train')
    assert len(hashes(tmp_path / 'digits')) == 7 + 2 + 1
