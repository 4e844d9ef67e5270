"""The command line of tools/prepare_data.py."""

import pytest
from data_trees import write_tree
from tiny_data import MAIN, main_options, tool, words, write_data

from mmpeft.data.trees import TREES

PARTS = {name: [f'{p.name}={p.annotations or ""}:{p.images}' for p in tree.parts] for name, tree in TREES.items()}


def prepare(*words):
    tool('prepare_data').main([str(word) for word in words])


@pytest.mark.parametrize('format', TREES)
def test_a_whole_data_set_passes_the_check(format, tmp_path, capsys):
    root = write_tree(format, tmp_path)
    prepare('check', format, root, '--part', *PARTS[format])
    assert capsys.readouterr().out.endswith('No problems.\n')


def test_an_incomplete_data_set_fails_with_a_summary(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        prepare('check', 'coco', write_tree('coco', tmp_path), '--part', 'train', 'val')
    assert ended.value.code == 1
    shown = capsys.readouterr().out
    assert 'PROBLEM: 1 another number of images than published: 4 instead of 118287' in shown
    assert shown.endswith('2 problems.\n')


def test_splitting_tells_the_memory_and_the_patches(tmp_path, capsys):
    root, out = write_tree('dota', tmp_path / 'dota'), tmp_path / 'out'
    words = ['split', 'dota', root, out, '--part', 'train', 'test', '--size', 16, '--overlap', 4, '--jobs', 2]
    prepare(*words)
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == 'train: one image at a time is held in memory, the largest 32 x 32 px, 0 MB'
    assert shown[1] == 'train: 36 patches of 4 images, 4 objects' and shown[3].startswith('test: 36 patches of 4')
    assert len(list((out / 'test/images').iterdir())) == len(list((out / 'train/annfiles').iterdir())) == 36
    prepare(*words)
    assert 'train: 36 patches (36 of them were there) of 4 images, 4 objects' in capsys.readouterr().out


def test_parts_are_joined_as_the_configs_of_mmrotate_expect(tmp_path):
    root = write_tree('star', tmp_path / 'star')
    for path in (root / 'val').rglob('*.*'):
        path.rename(path.with_name(f'val{path.name}'))
    prepare('split', 'star', root, tmp_path / 'out', '--part', 'train', 'val', '--join', 'trainval', '--rates', 1, 0.5)
    assert len(list((tmp_path / 'out/trainval/images').glob('*__1024__0___0.png'))) == 8


def test_subsets_and_held_out_sets_are_written_and_told(tmp_path, capsys):
    root = write_tree('voc', tmp_path / 'voc', images=40)
    prepare('subset', 'voc', root, tmp_path / 'few', '--fraction', 0.1, '--seed', 3)
    prepare('subset', 'voc', root, tmp_path / 'shots', '--shots', 1, '--part', 'trainval2012')
    prepare('holdout', 'voc', root, tmp_path / 'soup', '--fraction', 0.1)
    assert len(capsys.readouterr().out.splitlines()) == 4
    files = ['few.txt', 'shots.txt', 'soup/heldout.txt', 'soup/train.txt']
    assert [len((tmp_path / name).read_text().split()) for name in files] == [4, 4, 4, 36]


@pytest.mark.parametrize(
    'words, error',
    [
        (['check', 'voc', 'nowhere'], 'No folder nowhere. Get the data from http://host.robots.ox.ac.uk'),
        (['check', 'voc', '.', '--part', 'train'], "No part 'train'; there are trainval2007, test2007, trainval2012"),
        (['split', 'dota', 'nowhere', 'out'], 'Missing in nowhere: train/labelTxt, train/images'),
        (
            ['subset', 'coco', 'nowhere', 'out', '--shots', '1'],
            'train: no nowhere/annotations/instances_train2017.json',
        ),
        (['holdout', 'ade20k', 'nowhere', 'out'], 'training: no nowhere/annotations/training'),
    ],
)
def test_mistakes_are_answered_in_one_line(words, error):
    with pytest.raises(SystemExit, match=f'^error: {error}'):
        prepare(*words)


def test_an_amount_is_needed_for_a_subset(capsys):
    with pytest.raises(SystemExit, match='2'):
        prepare('subset', 'coco', 'root', 'out')
    assert 'one of the arguments --fraction --shots is required' in capsys.readouterr().err


def test_a_config_is_judged_by_its_own_loaders_classes_and_heads(tmp_path, capsys):
    root = write_data(tmp_path)
    prepare('check', '--config', MAIN, *words(main_options(root)))
    shown = capsys.readouterr().out
    assert shown.startswith(f'Judged as they are read by the loaders of {MAIN}.') and shown.endswith('No problems.\n')
    for split in ('train', 'val', 'test'):
        assert f'{split}_dataloader.dataset: 4 images, 4 objects of 2 classes' in shown
    with pytest.raises(SystemExit, match='the heads have 80'):
        prepare('check', '--config', MAIN, *words(main_options(root) | {'model.roi_head.mask_head.num_classes': 80}))
    (root / 'train/0.jpg').unlink()
    with pytest.raises(SystemExit, match='^error: 3 problems.$'):
        prepare('check', '--config', MAIN, *words(main_options(root)))
    assert 'PROBLEM: 1 image files that are missing: 0.jpg' in capsys.readouterr().out


@pytest.mark.parametrize('arguments', [['check'], ['check', 'coco'], ['check', 'coco', '.', '--config', MAIN]])
def test_the_check_takes_a_folder_or_a_config(arguments, capsys):
    with pytest.raises(SystemExit, match='2'):
        prepare(*arguments)
    assert 'give a format and a folder, or a config with --config' in capsys.readouterr().err
