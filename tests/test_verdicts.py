"""What the check says of a data set and what training does with it, side by side, for each format."""

import json
import re

import bad_data as bad
import numpy as np
import pytest
from bad_data import coco, every, first, maps, replace, text
from mmengine.registry import init_default_scope
from PIL import Image
from tiny_data import MAIN, ROTATED, SEGMENTOR, main_options, tool, words

from mmpeft.data.kinds import BOXES_ALONE, OTHER_TRUTH, SAME_FILE
from mmpeft.mm.checks import UserError, check_data, check_parts

CLEAN, PROBLEM = False, True
XML, TXT = 'VOC/Annotations/0.xml', 'labelTxt/0.txt'
LINE = '8 16 32 16 32 40 8 40 plane 0\n'
SHORT = [[1, 2, 3, 4]]

# Format, what it is, the way to break it, and the verdicts of the check and of training. Where these differ, the check
# lacks what the config says: heads, names that are left out on purpose, masks that are trained on.
TABLE = [
    ('coco', 'whole', lambda data: None, CLEAN, CLEAN),
    ('coco', 'an image without objects', coco(lambda c: c['annotations'].pop()), CLEAN, CLEAN),
    ('coco', 'one crowd', first(iscrowd=1), CLEAN, CLEAN),
    ('coco', 'a box under 1 px', first(bbox=[4, 4, 0.5, 9]), CLEAN, CLEAN),
    ('coco', 'a box over the edge', first(bbox=[40, 4, 40, 9]), CLEAN, CLEAN),
    ('coco', 'boxes without masks', bad.without('segmentation'), CLEAN, CLEAN),
    ('coco', 'ids of text', coco(bad.text_ids), CLEAN, CLEAN),
    ('coco', 'ids of text and of numbers', coco(bad.mixed_ids), PROBLEM, PROBLEM),
    ('coco', 'annotation ids of text', first(id='a'), PROBLEM, PROBLEM),
    ('coco', 'a name that is a number', coco(lambda c: c['categories'][0].update(name=1)), PROBLEM, PROBLEM),
    ('coco', 'equal annotation ids', every(id=1), PROBLEM, PROBLEM),
    ('coco', 'equal image ids', coco(lambda c: c['images'][1].update(id=0)), PROBLEM, PROBLEM),
    ('coco', 'equal category ids', coco(lambda c: c['categories'][1].update(id=1)), PROBLEM, PROBLEM),
    ('coco', 'equal category names', coco(lambda c: c['categories'][1].update(name='disk')), PROBLEM, PROBLEM),
    ('coco', 'no area', bad.without('area'), PROBLEM, PROBLEM),
    ('coco', 'no iscrowd', bad.without('iscrowd'), PROBLEM, PROBLEM),
    ('coco', 'no id', bad.without('id'), PROBLEM, PROBLEM),
    ('coco', 'no bbox', bad.without('bbox'), PROBLEM, PROBLEM),
    ('coco', 'area 0', every(area=0), PROBLEM, PROBLEM),
    ('coco', 'one area of 0', first(area=0), PROBLEM, PROBLEM),
    ('coco', 'all crowds', every(iscrowd=1), PROBLEM, PROBLEM),
    ('coco', 'an iscrowd of -5', first(iscrowd=-5), PROBLEM, PROBLEM),
    ('coco', 'all ignored', every(ignore=1), PROBLEM, PROBLEM),
    ('coco', 'boxes as shares of the image', every(bbox=[0.1, 0.2, 0.3, 0.4]), PROBLEM, PROBLEM),
    ('coco', 'boxes given as text', first(bbox=['8', '16', '24', '24']), PROBLEM, PROBLEM),
    ('coco', 'sizes given as text', coco(lambda c: c['images'][0].update(width='64')), PROBLEM, PROBLEM),
    ('coco', 'a number of 400 digits', coco(lambda c: c['annotations'][0].update(area=10**400)), PROBLEM, PROBLEM),
    ('coco', 'nan in a box', first(bbox=[float('nan'), 16, 24, 24]), PROBLEM, PROBLEM),
    ('coco', 'a category id of text', first(category_id='1'), PROBLEM, PROBLEM),
    ('coco', 'a category that is not listed', first(category_id=9), PROBLEM, PROBLEM),
    ('coco', 'an image that is not listed', first(image_id=9), PROBLEM, PROBLEM),
    ('coco', 'a byte order mark', bad.recode(bad.JSON, 'utf-8-sig'), PROBLEM, PROBLEM),
    ('coco', 'UTF-16', bad.recode(bad.JSON, 'utf-16'), PROBLEM, PROBLEM),
    ('coco', 'Latin-1', bad.latin, PROBLEM, PROBLEM),
    ('coco', 'no json', text(bad.JSON, '{'), PROBLEM, PROBLEM),
    ('coco', 'no annotations', coco(lambda c: c['annotations'].clear()), PROBLEM, PROBLEM),
    ('coco', 'images alone', coco(lambda c: c.pop('annotations')), PROBLEM, PROBLEM),
    ('coco', 'names in another order', bad.classes('square', 'disk'), PROBLEM, PROBLEM),
    ('coco', 'categories in another order', coco(bad.swap_categories), PROBLEM, PROBLEM),
    ('coco', 'a name too many', bad.one_more, PROBLEM, PROBLEM),
    ('coco', 'no name that matches', bad.classes('red', 'white'), PROBLEM, PROBLEM),
    ('coco', 'another case', bad.classes('Disk', 'square'), PROBLEM, PROBLEM),
    ('coco', 'a missing image', lambda d: (d.root / 'train/0.jpg').unlink(), PROBLEM, PROBLEM),
    ('coco', 'half an image', bad.image('train/0.jpg', bad.cut), PROBLEM, PROBLEM),
    ('coco', 'an empty image', text('train/0.jpg', ''), PROBLEM, PROBLEM),
    ('coco', 'an image that EXIF turns', bad.image('train/0.jpg', bad.turned), PROBLEM, PROBLEM),
    ('coco', 'a class left out', lambda d: (bad.classes('disk')(d), bad.heads(1)(d)), PROBLEM, CLEAN),
    ('coco', 'heads of 80', bad.heads(80), CLEAN, PROBLEM),
    ('coco', 'heads of 1', bad.heads(1), CLEAN, PROBLEM),
    ('voc', 'whole', lambda data: None, CLEAN, CLEAN),
    ('voc', 'no size', replace(XML, '<size><width>64</width><height>64</height></size>', ''), CLEAN, CLEAN),
    ('voc', 'decimals', replace(XML, '<xmin>9<', '<xmin>9.7<'), CLEAN, CLEAN),
    ('voc', 'one difficult object', replace(XML, '<difficult>0<', '<difficult>1<'), CLEAN, CLEAN),
    ('voc', 'all difficult', bad.all_difficult, PROBLEM, PROBLEM),
    ('voc', 'difficult in words', replace(XML, '<difficult>0<', '<difficult>no<'), PROBLEM, PROBLEM),
    ('voc', 'no box', replace(XML, 'bndbox', 'box'), PROBLEM, PROBLEM),
    ('voc', 'no name', replace(XML, 'name', 'label'), PROBLEM, PROBLEM),
    ('voc', 'half a size', replace(XML, '<height>64</height>', ''), PROBLEM, PROBLEM),
    ('voc', 'a box without an area', replace(XML, '<xmax>33<', '<xmax>9<'), PROBLEM, PROBLEM),
    ('voc', 'words for numbers', replace(XML, '<xmax>33<', '<xmax>far<'), PROBLEM, PROBLEM),
    ('voc', 'half a file', text(XML, '<annotation>'), PROBLEM, PROBLEM),
    ('voc', 'flags in the list', text('VOC/list.txt', '0 1\n1 -1\n'), PROBLEM, PROBLEM),
    ('voc', 'an empty line in the list', text('VOC/list.txt', '0\n\n1\n'), PROBLEM, PROBLEM),
    ('voc', 'a byte order mark in the list', bad.recode('VOC/list.txt', 'utf-8-sig'), PROBLEM, PROBLEM),
    ('voc', 'an empty list', text('VOC/list.txt', ''), PROBLEM, PROBLEM),
    ('voc', 'a missing file', lambda d: (d.root / XML).unlink(), PROBLEM, PROBLEM),
    ('voc', 'a missing image', lambda d: (d.root / 'VOC/JPEGImages/0.jpg').unlink(), PROBLEM, PROBLEM),
    ('voc', 'an image that EXIF turns', bad.image('VOC/JPEGImages/0.jpg', bad.turned), PROBLEM, PROBLEM),
    ('voc', 'no name that matches', bad.classes('red', 'white'), PROBLEM, PROBLEM),
    ('voc', 'another case', bad.classes('Disk', 'square'), PROBLEM, PROBLEM),
    ('voc', 'names in another order', bad.classes('square', 'disk'), CLEAN, CLEAN),
    ('voc', 'a class left out', lambda d: (bad.classes('disk')(d), bad.heads(1)(d)), PROBLEM, CLEAN),
    ('voc', 'heads of 20', bad.heads(20), CLEAN, PROBLEM),
    ('dota', 'whole', lambda data: None, CLEAN, CLEAN),
    ('dota', 'an image without objects', text(TXT, ''), CLEAN, CLEAN),
    ('dota', 'decimals', text(TXT, LINE.replace('8 16', '8.0 16.0')), CLEAN, CLEAN),
    ('dota', 'lines about the image', text(TXT, f'gsd:0.2\n{LINE}'), CLEAN, PROBLEM),  # split reads over them
    ('dota', 'a byte order mark', bad.recode(TXT, 'utf-8-sig'), PROBLEM, PROBLEM),
    ('dota', 'no difficulty', text(TXT, LINE.replace(' 0\n', '\n')), PROBLEM, PROBLEM),
    ('dota', 'a difficulty of 0.5', text(TXT, LINE.replace(' 0\n', ' 0.5\n')), PROBLEM, PROBLEM),
    ('dota', 'three corners', text(TXT, LINE.replace(' 8 40', '')), PROBLEM, PROBLEM),
    ('dota', 'no area', text(TXT, '8 16 32 16 32 16 8 16 plane 0\n'), PROBLEM, PROBLEM),
    ('dota', 'nan', text(TXT, LINE.replace('32 16', 'nan 16')), PROBLEM, PROBLEM),
    ('dota', 'an unknown class', text(TXT, LINE.replace('plane', 'train')), PROBLEM, PROBLEM),
    ('dota', 'another case', text(TXT, LINE.replace('plane', 'Plane')), PROBLEM, PROBLEM),
    ('dota', 'a name of two words', text(TXT, LINE.replace('plane', 'air plane')), PROBLEM, PROBLEM),
    ('dota', 'a missing image', lambda d: (d.root / 'train/0.jpg').unlink(), PROBLEM, PROBLEM),
    ('dota', 'half an image', bad.image('train/0.jpg', bad.cut), PROBLEM, PROBLEM),
    ('dota', 'no objects', lambda d: [path.write_text('') for path in bad.entries(d)], PROBLEM, PROBLEM),
    ('dota', 'heads of 15', bad.heads(15), CLEAN, PROBLEM),
    ('ade20k', 'from 0', lambda data: None, CLEAN, CLEAN),
    ('ade20k', 'one bit', maps(lambda m: Image.fromarray(m * 255).convert('1')), CLEAN, CLEAN),
    ('ade20k', '16 bits', maps(lambda m: m.astype(np.uint16)), CLEAN, CLEAN),
    ('ade20k', 'with 255', maps(lambda m: np.where(np.eye(64) > 0, 255, m).astype(np.uint8)), CLEAN, CLEAN),
    ('ade20k', '0 and 255', maps(lambda m: m * 255), PROBLEM, PROBLEM),
    ('ade20k', '255 alone', maps(lambda m: m * 0 + 255), PROBLEM, PROBLEM),
    ('ade20k', 'from 1', maps(lambda m: m + 1), CLEAN, PROBLEM),  # reduce_zero_label is False in the config
    ('ade20k', 'a label too many', maps(lambda m: m * 7), PROBLEM, PROBLEM),
    ('ade20k', '300 in 16 bits', maps(lambda m: m.astype(np.uint16) * 300), PROBLEM, PROBLEM),
    ('ade20k', 'colours', maps(lambda m: np.stack([m * 255] * 3, -1)), PROBLEM, PROBLEM),
    ('ade20k', 'gray and alpha', maps(lambda m: Image.fromarray(m).convert('LA')), PROBLEM, PROBLEM),
    ('ade20k', 'another size', maps(lambda m: m[:32]), PROBLEM, PROBLEM),
    ('ade20k', 'a missing map', lambda d: (d.root / 'labels/0.png').unlink(), PROBLEM, PROBLEM),
    ('ade20k', 'half an image', bad.image('train/0.jpg', bad.cut), PROBLEM, PROBLEM),
    ('ade20k', 'heads of 150', bad.heads(150), CLEAN, PROBLEM),
]  # fmt: skip


@pytest.mark.parametrize('format, what, spoil, checked, trained', TABLE, ids=[f'{row[0]}-{row[1]}' for row in TABLE])
def test_the_check_and_training_say_the_same(format, what, spoil, checked, trained, tmp_path):
    data = bad.write(format, tmp_path)
    spoil(data)
    assert (data.check().problems > 0) == checked
    if trained is PROBLEM:
        with pytest.raises(UserError) as refused:
            data.ask_training()
        assert '\n' not in str(refused.value) and str(refused.value).startswith('train_dataloader.dataset')
    else:
        data.ask_training()
        entries, objects = data.read()
        assert entries and objects
        if format == 'coco':
            assert data.score()['coco/bbox_mAP'] > 0


MASKS = [
    ('whole', lambda data: None, CLEAN),
    ('run lengths', every(segmentation=dict(size=[64, 64], counts=[64 * 16 + 8, 24, 64 * 48 - 32])), CLEAN),
    ('no key', bad.without('segmentation'), PROBLEM),
    ('empty', first(segmentation=[]), PROBLEM),
    ('two points', first(segmentation=SHORT), PROBLEM),
    ('a list of numbers', first(segmentation=[8, 16, 32, 16, 32, 40]), PROBLEM),
    ('text', first(segmentation=[['8', '16', '32', '16', '32', '40']]), PROBLEM),
    ('a line', first(segmentation=[[8, 16, 20, 28, 32, 40]]), PROBLEM),
    ('run lengths of another size', first(segmentation=dict(size=[32, 64], counts=[0, 32 * 64])), PROBLEM),
    ('too few run lengths', first(segmentation=dict(size=[64, 64], counts=[0, 9])), PROBLEM),
    ('run lengths of nothing', first(segmentation=dict(size=[64, 64], counts=[64 * 64])), PROBLEM),
    ('no run lengths', first(segmentation=dict(size=[64, 64])), PROBLEM),
]


@pytest.mark.parametrize('what, spoil, trained', MASKS, ids=[row[0] for row in MASKS])
def test_masks_that_cannot_be_read_are_a_note_for_boxes_and_a_problem_for_masks(what, spoil, trained, tmp_path):
    data = bad.write('coco', tmp_path, masks=True)
    spoil(data)
    report = data.check()
    assert report.problems == 0 and (BOXES_ALONE in report.parts[0].problems) == trained
    if trained is PROBLEM:
        with pytest.raises(UserError, match='without a mask, on a config that trains .*pipeline.1.with_mask=False'):
            data.ask_training()
        data.dataset.pipeline[1].with_mask = False
    data.ask_training()
    assert data.read()[1] == 4


def test_run_lengths_as_text_are_counted_as_pycocotools_does(tmp_path):
    from pycocotools import mask as masks

    from mmpeft.data.masks import mask_fault

    for seed in range(20):
        drawn = np.random.default_rng(seed).random((40, 50)) < seed / 20 + 0.02
        code = masks.encode(np.asfortranarray(drawn, np.uint8))
        mask = dict(size=code['size'], counts=code['counts'].decode())
        assert mask_fault(mask, (50, 40)) is None
        assert 'RLE of' in mask_fault(dict(mask, counts=mask['counts'] + '3'), (50, 40))


def test_classes_without_their_comma_are_refused_with_it(tmp_path):
    data = bad.write('coco', tmp_path)
    data.dataset.metainfo.classes = 'disk'
    with pytest.raises(UserError, match=r"classes is the word 'disk', of which each letter .* classes=\('disk',\)"):
        data.ask_training()


@pytest.mark.parametrize(
    'change, error',
    [
        (
            dict(metainfo=['disk', 'square']),
            r"metainfo is .'disk', 'square'., and it takes a dict, such as dict.classes",
        ),
        (dict(metainfo=dict(CLASSES=('disk', 'square'))), 'metainfo has CLASSES, which is not read; write classes'),
        (dict(metainfo=dict(classes=('disk', 'disk'))), "takes names, each of them once, and holds 'disk'"),
        (dict(metainfo=dict(classes=(0, 'disk'))), 'takes names, each of them once, and holds 0'),
        (dict(data_prefix='train'), "data_prefix is 'train', and it takes a dict"),
    ],
)
def test_what_no_data_set_takes_is_refused(change, error, tmp_path):
    data = bad.write('coco', tmp_path)
    for key in change:
        data.dataset.pop(key)
    data.dataset.update(change)
    with pytest.raises(UserError, match=error):
        data.ask_training()


def test_heads_that_leave_their_number_of_classes_to_mmdet_have_80(tmp_path):
    data = bad.write('coco', tmp_path)
    data.cfg.model = dict(roi_head=dict(bbox_head=[dict(type='Shared2FCBBoxHead'), dict(type='Shared2FCBBoxHead')]))
    with pytest.raises(UserError, match='the heads have 80.*model.roi_head.bbox_head.1.num_classes=2'):
        data.ask_training()


def test_label_maps_without_class_names_may_hold_anything(tmp_path):
    data = bad.write('ade20k', tmp_path)
    data.dataset.metainfo = dict()
    maps(lambda m: m * 9)(data)
    data.ask_training()
    assert data.read()[0] == 4


def test_names_are_told_ready_to_paste(tmp_path):
    data = bad.write('coco', tmp_path)
    bad.classes('square', 'disk')(data)
    with pytest.raises(UserError, match=r"\('square', 'disk'\); set classes=\('disk', 'square'\)"):
        data.ask_training()


def test_labels_that_begin_at_one_are_told_apart_from_those_that_begin_at_zero(tmp_path):
    data = bad.write('ade20k', tmp_path)
    assert 'holds 0 to 1 for 2 classes, as with reduce_zero_label=False' in str(data.check())
    maps(lambda m: m + 1)(data)
    with pytest.raises(UserError, match='label maps with values above the number of classes'):
        data.ask_training()
    data.dataset.reduce_zero_label = True
    data.ask_training()
    assert data.read() == (4, 4 * 64 * 64)


def test_a_label_that_data_and_heads_ignore_needs_no_class(tmp_path):
    data = bad.write('ade20k', tmp_path)
    maps(lambda m: m * 2)(data)
    with pytest.raises(UserError, match='label maps with values above the number of classes'):
        data.ask_training()
    data.dataset.ignore_index = 2
    with pytest.raises(UserError, match='label maps with values above the number of classes'):
        data.ask_training()
    data.cfg.model.decode_head.ignore_index = 2
    data.ask_training()


def test_settings_of_a_config_that_contradict_each_other_are_refused(tmp_path):
    data = bad.write('ade20k', tmp_path)
    data.dataset.pipeline[1].reduce_zero_label = True
    with pytest.raises(UserError, match='reduce_zero_label is False, and LoadAnnotations in its pipeline sets True'):
        data.ask_training()


@pytest.mark.parametrize('option', [dict(imdecode_backend='tifffile'), dict(color_type='color_ignore_orientation')])
def test_a_config_whose_loader_turns_no_image_is_judged_by_that(option, tmp_path):
    data = bad.write('coco', tmp_path)
    bad.turned(data.root / 'train/0.jpg')
    coco(lambda c: c['images'][0].update(width=96))(data)
    with pytest.raises(UserError, match='0.jpg .64 x 96 px as EXIF turns it, not 96 x 64 px'):
        data.ask_training()
    data.dataset.pipeline[0].update(option)
    data.ask_training()


def test_the_type_of_a_data_set_may_be_its_class(tmp_path):
    from mmdet.datasets import CocoDataset

    init_default_scope('mmdet')
    data = bad.write('coco', tmp_path)
    data.cfg.train_dataloader.dataset.type = CocoDataset
    bad.classes('square', 'disk')(data)
    with pytest.raises(UserError, match='another order'):
        data.ask_training()


def test_predictions_of_images_without_objects_may_be_asked_for(tmp_path):
    data = bad.write('coco', tmp_path)
    coco(lambda c: c['annotations'].clear())(data)
    data.cfg.test_dataloader = data.cfg.train_dataloader
    check_data(data.cfg, 'test')
    with pytest.raises(UserError, match='no object in any image'):
        data.ask_training()


def test_an_image_file_under_two_ids_is_noted(tmp_path):
    data = bad.write('coco', tmp_path)
    coco(lambda c: c['images'].append(dict(c['images'][0], id=9)))(data)
    report = data.check()
    assert report.problems == 0 and report.parts[0].problems[SAME_FILE] == ['0.jpg (ids 0 and 9)']


def test_training_looks_at_the_first_images_and_label_maps_and_asks_for_all(tmp_path, monkeypatch):
    monkeypatch.setattr('mmpeft.mm.checks.data.AT_MOST', 2)
    data = bad.write('ade20k', tmp_path)
    for path in (tmp_path / 'labels/3.png', tmp_path / 'train/2.jpg'):
        bad.cut(path)
    data.ask_training()
    (tmp_path / 'train/3.jpg').unlink()
    with pytest.raises(UserError, match='image files that are missing: 3.jpg'):
        data.ask_training()


@pytest.mark.slow
def test_boxes_without_masks_are_refused_with_the_options_that_train_them(tmp_path):
    data = bad.write('coco', tmp_path)
    bad.without('segmentation')(data)
    arguments = [MAIN, '--work-dir', str(tmp_path / 'work'), *words(main_options(tmp_path))]
    with pytest.raises(
        SystemExit, match='objects without a mask.*with_mask=True.*Draw masks, or train boxes'
    ) as refused:
        tool('train').main(arguments)
    options = re.search(r'--cfg-options (.*?)[.] All', str(refused.value))[1].split()
    assert options[:2] == ['model.roi_head.mask_head=None', 'train_dataloader.dataset.pipeline.1.with_mask=False']
    tool('train').main([*arguments, *options])
    assert (tmp_path / 'work/epoch_1.pth').is_file()


def test_a_metric_that_scores_by_another_json_is_refused(tmp_path):
    data = bad.write('coco', tmp_path)
    other = tmp_path / 'other.json'
    other.write_text((tmp_path / bad.JSON).read_text().replace('"id": 0', '"id": 90'))
    data.cfg.val_dataloader = data.cfg.train_dataloader
    for file, found in ((other, True), (tmp_path / '.' / bad.JSON, False)):
        data.cfg.val_evaluator = dict(type='CocoMetric', ann_file=str(file))
        reports = [*check_parts(data.cfg, ['val'])]
        assert bool(reports[0].problems.get(OTHER_TRUTH)) == found
    data.cfg.val_evaluator.ann_file = str(other)
    with pytest.raises(UserError, match='val_evaluator.ann_file=.*other.json lacks 1 of the 4 images'):
        check_data(data.cfg, 'val')


ODD = [
    row for row in TABLE if row[4] is CLEAN and row[0] != 'voc' and 'left out' not in row[1] and 'masks' not in row[1]
]


@pytest.mark.slow
@pytest.mark.parametrize('format, what, spoil', [row[:3] for row in ODD], ids=[f'{row[0]}-{row[1]}' for row in ODD])
def test_what_training_does_not_refuse_it_ends_with_losses_that_are_numbers(format, what, spoil, tmp_path):
    data = bad.write(format, tmp_path / 'data')
    spoil(data)
    config, options = tmp_path / 'config.py', {}
    if format == 'coco':
        options = main_options(data.root)
    else:
        config.write_text((ROTATED if format == 'dota' else SEGMENTOR).replace('{root}', str(data.root)))
    work = ['--work-dir', str(tmp_path / 'work')]
    tool('train').main([MAIN if format == 'coco' else str(config), *work, *(words(options) if options else [])])
    scalars = (tmp_path / 'work').rglob('vis_data/scalars.json')
    lines = [json.loads(line) for path in scalars for line in path.read_text().splitlines()]
    losses = [line['loss'] for line in lines if 'loss' in line]
    assert np.isfinite(losses).all()
    assert list((tmp_path / 'work').glob('*.pth'))
