"""Subsets and held-out sets: nested, seeded, by source, and read by the libraries' own data set classes."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from data_trees import write_tree

from mmpeft.data.prepare import make_holdout, make_subset
from mmpeft.data.records import Record
from mmpeft.data.subsets import choose_fraction, choose_heldout, choose_shots, group_by_source, shuffled
from mmpeft.data.trees import TREES


def many(count, classes=5, name='{:04d}.jpg', seed=0):
    """Records whose classes run from common to rare."""
    random = np.random.default_rng(seed)
    shares = 0.6 / 2.0 ** np.arange(classes)
    picks = random.random((count, classes)) < shares
    return [Record(name.format(i), Path(name), [f'c{k}' for k in np.flatnonzero(row)]) for i, row in enumerate(picks)]


def patches(images, each, seed=0):
    """Records of patches: ``each`` of every image."""
    records = many(images * each, seed=seed)
    for i, record in enumerate(records):
        record.name = f'P{i // each:04d}__1024__{824 * (i % each)}___0'
    return records


def names(records):
    return {record.name for record in records}


def test_fractions_are_nested():
    groups = group_by_source(many(1000))
    chosen = [names(choose_fraction(groups, share, 0)) for share in (0.01, 0.05, 0.1, 1.0)]
    assert [len(some) for some in chosen] == [10, 50, 100, 1000]
    assert chosen[0] < chosen[1] < chosen[2] < chosen[3]


def test_shots_are_nested_and_reach_every_class():
    records = many(1000)
    chosen = [choose_shots(records, shots, 0) for shots in (1, 5, 10)]
    assert names(chosen[0]) < names(chosen[1]) < names(chosen[2])
    for shots, some in zip((1, 5, 10), chosen, strict=True):
        assert min(Counter(c for r in some for c in r.classes)[f'c{k}'] for k in range(5)) >= shots
        assert len(some) <= 5 * shots


def test_a_class_with_fewer_images_than_shots_is_taken_whole():
    records = [Record('a', Path('a'), ['rare']), *(Record(str(i), Path('b'), ['often']) for i in range(9))]
    assert 'a' in names(choose_shots(records, 5, 0)) and len(choose_shots(records, 5, 0)) == 6


@pytest.mark.parametrize(
    'choose',
    [
        lambda records, seed: choose_fraction(group_by_source(records), 0.1, seed),
        lambda records, seed: choose_shots(records, 3, seed),
        lambda records, seed: choose_heldout(group_by_source(records), 0.1, seed),
    ],
    ids=['fraction', 'shots', 'heldout'],
)
def test_the_seed_alone_decides_which_images_are_chosen(choose):
    records = many(400)
    assert names(choose(records, 0)) == names(choose(records[::-1], 0)) != names(choose(records, 1))


def test_the_order_of_a_seed_is_pinned():
    assert shuffled(['a', 'b', 'c', 'd', 'e'], 0) == ['d', 'a', 'c', 'b', 'e']


def test_two_percent_are_held_out_with_two_percent_of_each_class():
    records = many(5000)
    held = choose_heldout(group_by_source(records), 0.02, 0)
    assert 90 <= len(held) <= 110
    count, total = (Counter(c for r in some for c in r.classes) for some in (held, records))
    assert all(abs(count[c] - 0.02 * total[c]) <= 1.5 for c in total)


def test_held_out_shares_hold_better_than_by_chance():
    records = many(2000, classes=8)
    total = Counter(c for r in records for c in r.classes)

    def error(some):
        count = Counter(c for r in some for c in r.classes)
        return sum(abs(count[c] / total[c] - 0.05) for c in total)

    groups = group_by_source(records)
    chance = np.mean([error(choose_fraction(groups, 0.05, seed)) for seed in range(5)])
    assert error(choose_heldout(groups, 0.05, 0)) < chance / 2


def test_no_source_lies_on_both_sides():
    records = patches(200, each=6)
    held = choose_heldout(group_by_source(records), 0.05, 0)
    sources = {record.name.split('__')[0] for record in held}
    assert len(held) == 6 * len(sources) and 8 <= len(sources) <= 12


def test_no_class_is_held_out_as_a_whole():
    videos = [Record(f'{video}_{i}', Path('x'), ['often', video]) for video in 'abc' for i in range(10)]
    with pytest.raises(ValueError, match='or the only one of a class'):
        choose_heldout(group_by_source(videos, '[^_]+'), 1 / 3, 0)
    videos += [Record(f'd_{i}', Path('x'), ['often', 'a']) for i in range(10)]
    held = choose_heldout(group_by_source(videos, '[^_]+'), 1 / 3, 0)
    assert {record.name[0] for record in held} in ({'a'}, {'d'})


def test_a_fraction_of_patches_is_a_fraction_of_their_images():
    chosen = choose_fraction(group_by_source(patches(100, each=4)), 0.05, 0)
    assert len(chosen) == 20 and len({record.name.split('__')[0] for record in chosen}) == 5


def test_sources_are_told_by_a_pattern_or_by_the_video_of_coco():
    records = [Record(f'{"ab"[i % 2]}_{i}.jpg', Path('x'), ['c']) for i in range(10)]
    assert {k: len(v) for k, v in group_by_source(records, '[^_]+').items()} == {'a': 5, 'b': 5}
    assert set(group_by_source(records, '(.)_')) == {'a', 'b'} and len(group_by_source(records)) == 10
    for record in records:
        record.source = f'video {record.name[0]}'
    assert set(group_by_source(records)) == {'video a', 'video b'}


@pytest.mark.parametrize(
    'name, source', [('P1__1024__0___824', 'P1'), ('P_1__0.5__1024__824___0', 'P_1'), ('a__b', 'a__b')]
)
def test_patches_are_known_by_their_names(name, source):
    assert list(group_by_source([Record(name, Path('x'))])) == [source]


def test_sources_that_are_too_large_are_refused():
    records = [Record(f'{"ab"[i % 2]}_{i}', Path('x'), ['c']) for i in range(100)]
    with pytest.raises(
        ValueError, match=r'for 2.0% of the images: each of the 2 is too large \(the smallest has 50 of 100'
    ):
        choose_heldout(group_by_source(records, '[^_]+'), 0.02, 0)


@pytest.mark.parametrize(
    'choose, error',
    [
        (lambda groups: choose_fraction(groups, 0, 0), 'above 0 and at most 1, got 0'),
        (lambda groups: choose_fraction(groups, 1.5, 0), 'above 0 and at most 1, got 1.5'),
        (lambda groups: choose_heldout(groups, 0.9, 0), 'above 0 and at most 0.5, got 0.9'),
        (lambda groups: choose_shots([], 0, 0), '0 shots are none'),
        (lambda groups: group_by_source(many(3), '('), 'is no regular expression'),
        (lambda groups: group_by_source(many(3), 'x+'), 'fits no name, such as 0000.jpg'),
    ],
)
def test_amounts_and_patterns_that_mean_nothing_are_refused(choose, error):
    with pytest.raises(ValueError, match=error):
        choose(group_by_source(many(3)))


@pytest.fixture(params=TREES)
def tree(request, tmp_path):
    return request.param, write_tree(request.param, tmp_path / 'tree', images=40)


def written(path):
    """The names of the images that an annotation file or folder speaks of."""
    if path.suffix == '.json':
        content = json.loads(path.read_text())
        assert {a['image_id'] for a in content['annotations']} == {i['id'] for i in content['images']}
        assert len(content['categories']) == 80
        return {Path(image['file_name']).stem for image in content['images']}
    return {p.stem for p in path.iterdir()} if path.is_dir() else set(path.read_text().split())


def test_a_subset_is_written_in_the_format_of_its_data_set(tree, tmp_path):
    format, root = tree
    few, more = (make_subset(format, root, tmp_path / f'out{share}', fraction=share) for share in (0.1, 0.25))
    few, more = (written(Path(line.partition(':')[0])) for line in (few, more))
    assert len(few) == 4 and len(more) == 10 and few < more


def test_the_line_counts_images_and_classes(tree, tmp_path):
    line = make_subset(*tree, tmp_path / 'out', shots=2)
    assert line.endswith(': 8 of 40 images, 4 of 4 classes, 2 to 2 images a class')


def test_held_out_and_training_images_are_all_images_once(tree, tmp_path):
    lines = list(make_holdout(*tree, tmp_path / 'out', fraction=0.1))
    held, rest = (written(Path(line.partition(':')[0])) for line in lines)
    assert len(held) == 4 and held.isdisjoint(rest) and held | rest == {str(i) for i in range(40)}
    assert '4 of 4 classes, 1 to 1 images a class' in lines[0]


def test_nothing_is_overwritten(tree, tmp_path):
    make_subset(*tree, tmp_path / 'train', fraction=0.1)
    before = {p: p.read_bytes() for p in tmp_path.glob('train*/**/*') if p.is_file()}
    with pytest.raises(ValueError, match='exists, and nothing is overwritten'):
        make_subset(*tree, tmp_path / 'train', fraction=0.2)
    with pytest.raises(ValueError, match='exists, and nothing is overwritten'):
        list(make_holdout(*tree, tmp_path, fraction=0.1))
    assert before == {p: p.read_bytes() for p in tmp_path.glob('train*/**/*') if p.is_file()}
    assert not list(tmp_path.glob('heldout*'))


@pytest.mark.parametrize('spoil', [lambda path: path.unlink(), lambda path: path.write_text('1 2 3\n')])
def test_annotations_that_cannot_be_read_are_refused(tmp_path, spoil):
    root = write_tree('dota', tmp_path / 'tree')
    spoil(root / 'train/labelTxt/0.txt')
    with pytest.raises(ValueError, match='train of .* has .*: .*0.*The check lists all'):
        make_subset('dota', root, tmp_path / 'out', fraction=0.5)


def test_a_part_without_annotations_is_refused(tmp_path):
    root = write_tree('dota', tmp_path / 'tree')
    with pytest.raises(ValueError, match='test of .* holds no annotated images'):
        make_subset('dota', root, tmp_path / 'out', part='test', fraction=0.5)


def test_shots_with_a_group_are_refused(tmp_path):
    root = write_tree('dota', tmp_path / 'tree')
    with pytest.raises(ValueError, match='Shots count images'):
        make_subset('dota', root, tmp_path / 'out', shots=1, group='.')


def test_label_files_are_written_without_their_headers(tmp_path):
    root = write_tree('dota', tmp_path / 'tree')
    make_subset('dota', root, tmp_path / 'out', fraction=1)
    assert (tmp_path / 'out/0.txt').read_text() == '2 2 20 2 20 12 2 12 plane 0\n'


def library_set(format, root, path):
    """The data set class that configs use, with a subset as its ``ann_file``."""
    from mmpeft.mm.checks import register_library

    part = TREES[format].parts[0]
    if format == 'ade20k':
        register_library('mmseg')
        from mmseg.datasets import ADE20KDataset

        prefix = dict(img_path=part.images, seg_map_path=part.annotations)
        return ADE20KDataset(data_root=str(root), ann_file=str(path), data_prefix=prefix, pipeline=[])
    if format == 'coco':
        from mmdet.datasets import CocoDataset

        return CocoDataset(data_root=str(root), ann_file=str(path), data_prefix=dict(img=part.images), pipeline=[])
    if format == 'voc':
        from mmdet.datasets import VOCDataset

        prefix = dict(sub_data_root=f'{part.images}/')
        return VOCDataset(data_root=str(root), ann_file=str(path), data_prefix=prefix, pipeline=[])
    from mmrotate.datasets import DOTADataset

    prefix = dict(img_path=part.images)
    keys = dict(img_suffix='jpg', metainfo=dict(classes=TREES[format].classes))
    return DOTADataset(data_root=str(root), ann_file=str(path), data_prefix=prefix, pipeline=[], **keys)


def test_the_libraries_read_what_was_written(tree, tmp_path):
    format, root = tree
    line = make_subset(format, root, tmp_path / 'out', fraction=0.1)
    dataset = library_set(format, root, Path(line.partition(':')[0]).resolve())
    paths = [Path(dataset.get_data_info(i)['img_path']) for i in range(len(dataset))]
    assert len(paths) == 4 and all(path.is_file() for path in paths)
