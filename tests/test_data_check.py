"""What the check of data sets finds, one kind of damage at a time."""

import importlib
import json
import re
import shutil

import cv2
import numpy as np
import pytest
from data_trees import XML, small_tree, write_tree
from PIL import Image

from mmpeft.data import kinds
from mmpeft.data.check import check_tree
from mmpeft.data.images import ORIENTATION
from mmpeft.data.trees import TREES, tree_of

FIRST = {name: tree.parts[0] for name, tree in TREES.items()}
UNREADABLE = 'image files that cannot be read'


@pytest.fixture
def checked(tmp_path):
    """A function that writes a tree, damages it, and gives the report of its check."""

    def check(format, spoil=lambda root: None, decode=False):
        root = write_tree(format, tmp_path / format)
        spoil(root)
        return check_tree(format, root, small_tree(format), decode)

    return check


def image(format):
    return f'{FIRST[format].images}/{"JPEGImages/" if format == "voc" else ""}0.jpg'


def coco(change):
    """Damage to the json: ``change`` gets its content."""

    def spoil(root):
        path = root / FIRST['coco'].annotations
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))

    return spoil


def text(path, content):
    return lambda root: (root / path).write_text(content)


def box(label, *sides):
    return text('VOC2007/Annotations/0.xml', XML[0].format(XML[1].format(label, *sides)))


def quad(line):
    return text('train/labelTxt/0.txt', f'{line}\n')


def label_map(values):
    return lambda root: cv2.imwrite(str(root / 'annotations/training/0.png'), values)


@pytest.mark.parametrize('format', TREES)
def test_a_whole_tree_has_no_problems(checked, format):
    report = checked(format)
    assert report.problems == 0 and str(report).endswith('No problems.')
    assert [part.images for part in report.parts] == [4] * len(TREES[format].parts)
    assert report.parts[0].objects == dict.fromkeys(TREES[format].classes[:4], 1)
    assert f'{FIRST[format].name}: 4 images, 4 objects of 4 classes' in str(report)


@pytest.mark.parametrize('format', TREES)
def test_a_missing_folder_is_told_with_the_place_to_get_it(checked, format):
    gone = FIRST[format].images
    report = checked(format, lambda root: shutil.rmtree(root / gone))
    assert gone in report.missing and len(report.parts) < len(TREES[format].parts)
    assert f'Get it from {TREES[format].source}' in str(report)


@pytest.mark.parametrize('format', [name for name in TREES if FIRST[name].annotations])
def test_missing_annotations_are_told(checked, format):
    path = FIRST[format].annotations

    def remove(root):
        shutil.rmtree(root / path) if (root / path).is_dir() else (root / path).unlink()

    assert checked(format, remove).missing == [path]


@pytest.mark.parametrize('format', TREES)
@pytest.mark.parametrize('kept', [0, 30, -40], ids=['empty', 'no head', 'cut off'])
def test_an_unreadable_image_is_named(checked, format, kept):
    def cut(root):
        path = root / image(format)
        path.write_bytes(path.read_bytes()[:kept])

    problems = checked(format, cut).parts[0].problems
    assert [where.split()[0] for where in problems[UNREADABLE]] == ['0.jpg']


@pytest.mark.parametrize('format', ['coco', 'voc'])
def test_a_missing_image_is_named(checked, format):
    problems = checked(format, lambda root: (root / image(format)).unlink()).parts[0].problems
    assert problems['image files that are missing'] == ['0.jpg']


def category(number):
    return coco(lambda content: content['annotations'][0].update(category_id=number))


CLASS, OUT, OVER = 'class names that differ', 'objects wholly outside', 'objects that reach over the edge'
UNREAD, NO_AREA, EMPTY = 'annotations that cannot be read', 'boxes without an area', 'images without objects'
NO_FILE, RANGE, SIZE = 'images without their annotation file', 'label maps with values above', 'images of another size'
EMPTY_BOX, ENCODING, TEXT = 'objects without an area', 'files that are not plain UTF-8', 'numbers given as text'
LACKS, ORDER = 'annotations without a key', 'class names in another order'


def every(**changes):
    return coco(lambda content: [entry.update(changes) for entry in content['annotations']])


def first(**changes):
    return coco(lambda content: content['annotations'][0].update(changes))


def lacking(key):
    return coco(lambda content: content['annotations'][0].pop(key))


def recoded(path, encoding):
    return lambda root: (root / path).write_text((root / path).read_text(), encoding=encoding)


def category_named(name):
    return coco(lambda content: content['categories'][1].update(name=name))


def swapped(content):
    content['categories'][:2] = content['categories'][1::-1]


DAMAGE = [
    ('coco', category(99), CLASS, r'category id 99 \(1 objects'),
    ('coco', coco(lambda c: c['categories'][0].update(name='Person')), CLASS, r'Person \(1 objects, perhaps person\)'),
    ('coco', coco(lambda c: c['annotations'][0].update(bbox=[40, 4, 9, 9])), OUT, 'person in 0.jpg'),
    ('coco', coco(lambda c: c['annotations'][0].update(bbox=[20, 4, 20, 9])), OVER, 'person in 0.jpg'),
    ('coco', coco(lambda c: c['annotations'][0].update(bbox=[4, 4, 0, 9])), NO_AREA, 'annotation 0 in 0.jpg'),
    (
        'coco',
        coco(lambda c: c['annotations'][0].update(image_id=77)),
        'annotations of images',
        'annotation 0 of image id 77',
    ),
    ('coco', coco(lambda c: c['images'].append(c['images'][0])), 'images listed twice', r'0.jpg \(id 0\)'),
    ('coco', coco(lambda c: c['images'][0].update(width=99)), SIZE, '0.jpg .32 x 32 px, not 99 x 32 px'),
    ('coco', coco(lambda c: c['annotations'].pop(0)), EMPTY, '0.jpg'),
    ('coco', coco(lambda c: c['annotations'].clear()), 'no object in any image', 'instances_train2017.json'),
    ('coco', coco(lambda c: (c['images'].clear(), c['annotations'].clear())), 'nothing in it', 'instances_train2017'),
    ('coco', coco(lambda c: c['images'].pop()), 'another number of images', '3 instead of 4'),
    ('coco', coco(lambda c: c.pop('categories')), UNREAD, 'has no list of categories'),
    ('coco', coco(lambda c: c['images'][0].pop('width')), UNREAD, "lacks or misstates 'width'"),
    ('coco', text(FIRST['coco'].annotations, '{"images'), UNREAD, 'is no COCO json'),
    ('coco', text(FIRST['coco'].annotations, '[]'), UNREAD, 'is no COCO json'),
    ('coco', first(id=1), 'annotations with the id of another', 'id 1 2 times'),
    ('coco', category_named('person'), 'categories with the id or the name', "name 'person'"),
    ('coco', lacking('area'), LACKS, 'area of annotation 0 in 0.jpg'),
    ('coco', lacking('iscrowd'), LACKS, 'iscrowd of annotation 0 in 0.jpg'),
    ('coco', lacking('id'), LACKS, 'id of annotation number 0 in 0.jpg'),
    ('coco', first(area=0), 'objects whose area is given as 0', 'annotation 0 in 0.jpg'),
    ('coco', every(iscrowd=1), 'no object that is left', r'instances_train2017.json \(4 crowds\)'),
    ('coco', every(ignore=1), 'no object that is left', r'\(4 marked ignore\)'),
    ('coco', every(bbox=[0.1, 0.1, 0.3, 0.4]), 'no object that is left', r'\(4 less than 1 px wide or high\)'),
    ('coco', first(bbox=['4', 4, 10, 12]), TEXT, 'bbox of annotation 0 in 0.jpg'),
    ('coco', first(area='120', iscrowd='0'), TEXT, 'area and iscrowd of annotation 0 in 0.jpg'),
    ('coco', first(bbox=[float('nan'), 4, 10, 12]), TEXT, 'bbox of annotation 0 in 0.jpg'),
    ('coco', first(category_id='1'), CLASS, r'category id 1 \(1 objects'),
    ('coco', coco(lambda c: c['images'][0].update(width='32')), TEXT, "width '32', height 32 of 0.jpg"),
    ('coco', recoded(FIRST['coco'].annotations, 'utf-8-sig'), ENCODING, 'begins with a byte order mark'),
    ('coco', recoded(FIRST['coco'].annotations, 'utf-16'), ENCODING, 'is UTF-16'),
    ('coco', coco(swapped), ORDER, r"set classes=\('bicycle', 'person', 'car'"),
    ('coco', category_named('bike'), 'class names that the json does not list', "'bicycle'; the json lists .*'bike'"),
    (
        'voc',
        text('VOC2007/ImageSets/Main/trainval.txt', '0 1\n1 1\n'),
        UNREAD,
        "more or less than a name, such as '0 1'",
    ),
    ('voc', text('VOC2007/ImageSets/Main/trainval.txt', '0\n1\n\n'), UNREAD, '1 lines of trainval.txt'),
    ('voc', box('bird', 'nan', 1, 9, 9), UNREAD, '0.xml'),
    ('voc', text('VOC2007/Annotations/0.xml', XML[0].format('<object><name>cat</name></object>')), UNREAD, '0.xml'),
    ('voc', box('aeroplan', 1, 1, 9, 9), CLASS, r'aeroplan \(1 objects, perhaps aeroplane\)'),
    ('voc', box('bird', 40, 1, 50, 9), OUT, 'bird in 0'),
    ('voc', box('bird', 1, 1, 50, 9), OVER, 'bird in 0'),
    ('voc', box('bird', 9, 1, 9, 9), EMPTY_BOX, 'bird in 0'),
    ('voc', box('bird', 'a', 1, 9, 9), UNREAD, '0.xml'),
    ('voc', text('VOC2007/Annotations/0.xml', '<annotation>'), UNREAD, '0.xml'),
    ('voc', text('VOC2007/Annotations/0.xml', XML[0].format('')), EMPTY, '0'),
    ('voc', text('VOC2007/Annotations/0.xml', XML[0].format('').replace('<width>32', '<width>9')), SIZE, '0.jpg'),
    ('voc', lambda root: (root / 'VOC2007/Annotations/0.xml').unlink(), NO_FILE, '0'),
    ('voc', text('VOC2007/ImageSets/Main/trainval.txt', ''), 'nothing in it', 'trainval.txt'),
    ('voc', text('VOC2007/ImageSets/Main/trainval.txt', '0\n0\n1\n'), 'images listed twice', '1 names in trainval'),
    ('ade20k', label_map(np.full((32, 32), 151, np.uint8)), RANGE, r'0.png \(151\)'),
    ('ade20k', label_map(np.full((32, 32), 300, np.uint16)), 'label maps with values that', '300 read as 44'),
    ('ade20k', label_map(np.zeros((32, 32, 3), np.uint8)), UNREAD, '0.png has pixels of kind RGB'),
    ('ade20k', label_map(np.ones((9, 32), np.uint8)), SIZE, r'0.jpg .32 x 32 px, not 32 x 9 px'),
    ('ade20k', label_map(np.zeros((32, 32), np.uint8)), EMPTY, '0'),
    ('ade20k', text('annotations/training/0.png', 'no image'), UNREAD, '0.png'),
    ('ade20k', lambda root: (root / 'annotations/training/0.png').unlink(), NO_FILE, '0'),
    ('ade20k', lambda root: (root / 'images/training/0.jpg').unlink(), 'image files that are missing', '0.png'),
    ('dota', quad('1 1 9 1 9 9 1 9 small_vehicle 0'), CLASS, r'small_vehicle \(1 objects, perhaps small-vehicle\)'),
    ('dota', quad('40 1 49 1 49 9 40 9 ship 0'), OUT, 'ship in 0'),
    ('dota', quad('1 1 49 1 49 9 1 9 ship 0'), OVER, 'ship in 0'),
    ('dota', quad('nan 1 9 1 9 9 1 9 ship 0'), OUT, 'ship in 0'),
    ('dota', quad('1 1 9 1 9 9 ship 0'), UNREAD, '0.txt, line 1'),
    ('dota', quad('1 1 9 1 9 1 1 1 ship 0'), EMPTY_BOX, 'ship in 0'),
    ('dota', quad('1 1 9 1 9 9 1 9 ship'), LACKS, 'difficulty in 1 lines of 0.txt'),
    ('dota', quad('1 1 9 1 9 9 1 9 ship 0.5'), UNREAD, '0.txt, line 1'),
    ('dota', recoded('train/labelTxt/0.txt', 'utf-8-sig'), ENCODING, '0.txt begins with a byte order mark'),
    ('dota', quad(''), EMPTY, '0'),
    ('dota', lambda root: (root / 'train/labelTxt/0.txt').unlink(), NO_FILE, '0'),
    ('dota', lambda root: (root / 'train/images/0.jpg').unlink(), 'image files that are missing', '0.png'),
    ('star', quad('1 1 9 1 9 9 1 9 wind-mill 0'), CLASS, r'wind-mill \(1 objects, perhaps wind_mill\)'),
]
NOTED = (OVER, NO_AREA, EMPTY)


@pytest.mark.parametrize('format, spoil, kind, where', DAMAGE, ids=[f'{d[0]}-{d[2]}-{i}' for i, d in enumerate(DAMAGE)])
def test_damage_is_found_and_named(checked, format, spoil, kind, where):
    report = checked(format, spoil)
    found = [(k, w) for k, all_of_it in report.parts[0].problems.items() if k.startswith(kind) for w in all_of_it]
    assert len(found) == 1 and re.search(where, found[0][1])
    line = next(line for line in str(report).splitlines() if kind in line)
    assert line.startswith('  note: 1 ' if kind in NOTED else '  PROBLEM: 1 ')
    assert (report.problems > 0) == (kind not in NOTED)


def test_damage_inside_an_image_is_found_by_decoding(checked):
    def spoil(root):
        path = root / 'train2017/0.png'
        cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
        content = bytearray(path.read_bytes())
        content[len(content) // 2 : len(content) // 2 + 200] = bytes(200)
        (root / image('coco')).write_bytes(content)
        coco(lambda c: c['images'][0].update(width=64, height=64))(root)

    assert checked('coco', spoil, decode=True).parts[0].problems[UNREADABLE][0].startswith('0.jpg cannot be read')


def test_classes_of_ones_own_are_checked_against_the_given_names(tmp_path):
    root = write_tree('coco', tmp_path)
    own = ['own=annotations/instances_train2017.json:train2017']
    assert check_tree('coco', root, tree_of('coco', own)).problems == 0
    report = check_tree('coco', root, tree_of('coco', own, ['person', 'bicycle', 'car']))
    assert report.problems == 1 and 'motorcycle (1 objects)' in str(report)


def test_label_maps_of_ones_own_have_as_many_classes_as_names_are_given(tmp_path):
    root, own = write_tree('ade20k', tmp_path), ['own=annotations/training:images/training']
    assert check_tree('ade20k', root, tree_of('ade20k', own, list('abcd'))).problems == 0
    assert '3.png (4)' in str(check_tree('ade20k', root, tree_of('ade20k', own, list('abc'))))


def test_many_examples_are_shortened(checked):
    lost = coco(lambda c: c['annotations'].extend([dict(c['annotations'][0], image_id=7)] * 9))
    shown = str(checked('coco', lost))
    assert '9 annotations of images that are not listed: annotation 0' in shown and ', and 4 more' in shown


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ValueError, match='No folder .*nowhere. Get the data from https://cocodataset.org'):
        check_tree('coco', tmp_path / 'nowhere', tree_of('coco'))


@pytest.mark.parametrize(
    'text, error', [('trian', "No part 'trian'; there are train, val"), ('a=b', 'NAME=ANNOTATIONS')]
)
def test_an_unknown_part_is_answered_with_the_known_ones(text, error):
    with pytest.raises(ValueError, match=error):
        tree_of('coco', [text])


@pytest.mark.parametrize(
    'format, place',
    [
        ('coco', 'mmdet.datasets.coco:CocoDataset'),
        ('voc', 'mmdet.datasets.voc:VOCDataset'),
        ('dota', 'mmrotate.datasets.dota:DOTADataset'),
    ],
)
def test_class_names_are_those_of_the_libraries(format, place):
    module, name = place.split(':')
    assert TREES[format].classes == getattr(importlib.import_module(module), name).METAINFO['classes']


def test_star_and_ade20k_have_as_many_classes_as_published():
    assert len(set(TREES['star'].classes)) == 48 and len(TREES['ade20k'].classes) == 150


def test_boxes_of_the_picture_as_it_is_stored_are_a_problem_where_exif_turns_it(checked):
    def turn(root):
        exif = Image.Exif()
        exif[ORIENTATION] = 6
        Image.new('RGB', (32, 64)).save(root / image('coco'), exif=exif)

    def both(sizes):
        return lambda root: (turn(root), coco(lambda c: c['images'][0].update(sizes))(root))

    for decode in (False, True):
        assert checked('coco', both(dict(width=64, height=32)), decode).problems == 0
    found = checked('coco', both(dict(width=32, height=64))).parts[0].problems[kinds.OTHER_SIZE]
    assert found == ['0.jpg (64 x 32 px as EXIF turns it, not 32 x 64 px)']


def test_the_report_says_by_which_loaders_it_judges(checked):
    line = str(checked('coco')).splitlines()[0]
    assert line.startswith("Judged as they are read by mmdet's CocoDataset") and 'turns them as EXIF says' in line


def test_parts_that_list_their_categories_in_another_order_are_told(tmp_path):
    root = write_tree('coco', tmp_path)
    path = root / 'annotations/instances_val2017.json'
    content = json.loads(path.read_text())
    swapped(content)
    path.write_text(json.dumps(content))
    own = [f'{p.name}={p.annotations}:{p.images}' for p in TREES['coco'].parts]
    report = check_tree('coco', root, tree_of('coco', own))
    assert report.problems == 1 and "val lists ('bicycle', 'person', " in report.parts[1].problems[kinds.OTHER_PART][0]
