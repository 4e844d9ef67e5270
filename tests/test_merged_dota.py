import json
import zipfile
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp
from rotated import CLASSES, boxes, cut, map_of_mmrotate, random_images, sample, scene, score, write_labels

from mmpeft.mm.rotated.merged_dota import MergedDOTAMetric
from mmpeft.mm.rotated.patches import Detections, Truth, patch_of

NONE = Detections(torch.zeros(0, 5), torch.zeros(0), torch.zeros(0, dtype=torch.long))
EMPTY = Truth(torch.zeros(0, 5), torch.zeros(0, dtype=torch.long), torch.zeros(0, dtype=torch.bool))
COCO = [0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95]
RATES = [('{0}__{1}__{2}___{3}', 1.0), ('{0}__0.5__{2}___{3}', 0.5), ('{0}__0.5__{1}__{2}___{3}', 0.5)]


def two_objects() -> tuple[Truth, Detections]:
    """Two planes; the detections by score: one of the first, one beside both, one of the second."""
    truth = Truth(boxes([50, 50, 20, 10, 0.3], [150, 50, 20, 10, 0]), torch.tensor([0, 0]), torch.zeros(2).bool())
    places = boxes([50, 50, 20, 10, 0.3], [100, 100, 20, 10, 0], [150, 50, 20, 10, 0])
    return truth, Detections(places, torch.tensor([0.9, 0.8, 0.7]), torch.tensor([0, 0, 0]))


def with_false(found: Detections, *rows: list[float], scores: list[float]) -> Detections:
    """The same with more planes found."""
    labels = torch.zeros(len(rows), dtype=torch.long)
    return Detections(*map(torch.cat, zip(found, (boxes(*rows), torch.tensor(scores), labels), strict=True)))


@pytest.mark.parametrize(
    'name, place',
    [
        ('P0001__1024__824___1648', ('P0001', 824, 1648, 1.0)),
        ('P0001__0.5__824___0', ('P0001', 824, 0, 0.5)),
        ('P0001__1__824___0', ('P0001', 824, 0, 1.0)),
        ('P0001__1.5__1024__824___0', ('P0001', 824, 0, 1.5)),
        ('a__b__512__0___0', ('a__b', 0, 0, 1.0)),
        ('P0001', None),
        ('P0001__1024', None),
    ],
)
def test_the_name_of_a_patch_tells_its_image_its_corner_and_its_rate(name, place):
    assert patch_of(name) == place


@pytest.mark.parametrize('mode, expected', [('11points', (6 + 5 * 2 / 3) / 11), ('area', (1 + 2 / 3) / 2)])
def test_score_is_the_one_computed_by_hand(mode, expected):
    result = score([sample('P0001', *two_objects())], eval_mode=mode)
    assert result == pytest.approx({'dota/mAP': expected, 'dota/AP50': expected})


@pytest.mark.parametrize('style, rate', RATES)
@pytest.mark.parametrize('mode', ['11points', 'area'])
def test_merged_patches_score_exactly_as_the_whole_images_do(style, rate, mode):
    scenes = {f'P{seed:04}': scene(seed) for seed in range(3)}
    options = dict(eval_mode=mode, iou_thrs=COCO)
    whole = score([sample(name, *parts) for name, parts in scenes.items()], **options)
    patches = [patch for name, parts in scenes.items() for patch in cut(name, *parts, rate=rate, style=style)]
    objects = sum(len(truth.labels) for truth, _ in scenes.values())
    seen = sum(len(patch['gt_instances']['labels']) for patch in patches)
    assert rate < 1 or seen > 1.2 * objects  # the overlaps hold many objects twice
    assert 0.1 < whole['dota/mAP'] < whole['dota/AP50'] < 0.9
    assert score(patches, **options) == pytest.approx(whole, abs=1e-6)


def test_labels_of_whole_images_give_the_same_score_as_those_of_patches_that_hold_all_objects(tmp_path):
    truth, found = scene(0)
    write_labels(tmp_path / 'labels', 'P0001', truth)
    patches = cut('P0001', truth, found)
    whole = score([sample('P0001', truth, found)])
    unlabelled = [patch | dict(gt_instances={}, ignored_instances={}) for patch in patches]
    assert score(unlabelled, ann_dir=str(tmp_path / 'labels')) == pytest.approx(whole, abs=1e-6) == score(patches)


def test_an_object_in_no_patch_is_missed_by_the_labels_of_whole_images_alone(tmp_path):
    truth, found = two_objects()
    write_labels(tmp_path / 'labels', 'P0001', truth)
    first = Truth(*(value[:1] for value in truth)), Detections(*(value[:1] for value in found))
    patches = [sample('P0001__1024__0___0', *first)]
    assert score(patches)['dota/mAP'] == pytest.approx(1)
    assert score(patches, ann_dir=str(tmp_path / 'labels'))['dota/mAP'] == pytest.approx(6 / 11)


def test_score_of_patches_is_called_patch_map_and_counts_an_object_in_each_patch_that_shows_it():
    truth, found = two_objects()
    right = Detections(*(value[[0, 2]] for value in found))
    moved = truth._replace(boxes=truth.boxes - boxes([10, 0, 0, 0, 0]))
    patches = [sample('P0001__1024__0___0', truth, right), sample('P0001__1024__10___0', moved, NONE)]
    result = score(patches, patch_scores=True)
    assert set(result) == {'dota/mAP', 'dota/AP50', 'dota/patch_mAP', 'dota/patch_AP50'}
    assert result['dota/mAP'] == pytest.approx(1) and result['dota/patch_mAP'] == pytest.approx(6 / 11)


def test_whole_images_have_no_patch_score():
    assert set(score([sample('P0001', *two_objects())], patch_scores=True)) == {'dota/mAP', 'dota/AP50'}


def test_nms_thins_overlapping_detections_of_patches_in_each_class_and_leaves_whole_images_alone():
    truth, found = two_objects()
    double = with_false(found, [51, 50, 20, 10, 0.3], scores=[0.95])
    other = Detections(boxes([50, 50, 20, 10, 0.3]), torch.tensor([0.99]), torch.tensor([1]))
    all_found = Detections(*map(torch.cat, zip(double, other, strict=True)))
    expected = score([sample('P0001', truth, found)])
    assert score([sample('P0001__1024__0___0', truth, all_found)]) == pytest.approx(expected)
    assert score([sample('P0001', truth, double)])['dota/mAP'] < expected['dota/mAP']


@pytest.mark.parametrize('diff_thr, expected', [(100, 6 / 11), (0, 1.0)])
def test_difficult_objects_count_as_in_mmrotate_or_are_ignored_as_on_the_server(tmp_path, diff_thr, expected):
    truth, found = two_objects()
    write_labels(tmp_path / 'labels', 'P0001', truth._replace(ignored=torch.tensor([False, True])))
    first = Detections(*(value[:1] for value in found))
    for extra in (first, with_false(first, [150, 50, 20, 10, 0], scores=[0.1])):
        result = score([sample('P0001', EMPTY, extra)], ann_dir=str(tmp_path / 'labels'), diff_thr=diff_thr)
        assert result['dota/mAP'] == pytest.approx(1.0 if extra is not first else expected)


def test_an_object_is_ignored_if_it_is_in_every_patch_that_shows_it():
    truth, found = two_objects()
    hidden = truth._replace(ignored=torch.tensor([True, True]))
    one = truth._replace(ignored=torch.tensor([True, False]))
    both = [sample('P0001__1024__0___0', hidden, found), sample('P0001__512__0___0', one, NONE)]
    assert score(both)['dota/mAP'] == pytest.approx(0.5)


@pytest.mark.parametrize('iou_thr, eleven_points', [(0.3, True), (0.5, True), (0.5, False)])
@pytest.mark.parametrize('seed', range(3))
def test_score_of_whole_images_is_that_of_mmrotate(monkeypatch, seed, iou_thr, eleven_points):
    images = random_images(seed)
    samples = [sample(f'P{i:04}', *image) for i, image in enumerate(images)]
    mode = '11points' if eleven_points else 'area'
    theirs = map_of_mmrotate(monkeypatch, images, iou_thr, eleven_points)
    assert score(samples, iou_thrs=iou_thr, eval_mode=mode)['dota/mAP'] == pytest.approx(theirs, abs=1e-6) and theirs


def test_images_without_detections_or_objects_are_scored():
    truth, found = two_objects()
    assert score([sample('P0001', truth, NONE)]) == {'dota/mAP': 0, 'dota/AP50': 0}
    assert score([sample('P0001__1024__0___0', EMPTY, NONE)]) == {'dota/mAP': 0, 'dota/AP50': 0}
    false = with_false(found, scores=[])
    right = Detections(*(value[[0, 2]] for value in found))
    result = score([sample('P0001', truth, right), sample('P0002', EMPTY, false)], eval_mode='area')
    assert 0.5 < result['dota/mAP'] < 1


def test_zip_for_the_server_has_a_file_a_class_and_a_line_a_box_of_the_merged_images(tmp_path):
    truth, found = two_objects()
    patches = [sample('P0002__1024__0___0', None, NONE), sample('P0001__1024__800___24', None, found)]
    assert score(patches, format_only=True, outfile_prefix=str(tmp_path / 'results/Task1')) == {}
    with zipfile.ZipFile(tmp_path / 'results/Task1.zip') as archive:
        assert archive.namelist() == [f'Task1_{name}.txt' for name in CLASSES]
        planes, *others = (archive.read(name).decode() for name in archive.namelist())
    assert others == ['', '']
    words = [line.split() for line in planes.splitlines()]
    assert [(image, score) for image, score, *_ in words] == [
        ('P0001', '0.900000'),
        ('P0001', '0.800000'),
        ('P0001', '0.700000'),
    ]
    corners = {tuple(map(float, words[1][i : i + 2])) for i in range(2, 10, 2)}
    assert corners == {(890.0, 119.0), (910.0, 119.0), (910.0, 129.0), (890.0, 129.0)}


def test_a_zip_file_is_written_beside_the_score_and_never_over_another(tmp_path):
    assert score([sample('P0001', *two_objects())], outfile_prefix=str(tmp_path / 'Task1'))['dota/mAP'] > 0
    with pytest.raises(FileExistsError, match=r'Task1\.zip exists; choose another outfile_prefix'):
        MergedDOTAMetric(outfile_prefix=str(tmp_path / 'Task1'))


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(eval_mode='voc'), "eval_mode is '11points' or 'area', not 'voc'"),
        (dict(format_only=True), 'say where with outfile_prefix'),
        (dict(ann_dir='absent'), 'No folder absent with the labels of whole images'),
    ],
)
def test_options_that_cannot_work_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        MergedDOTAMetric(**options)


def test_missing_or_foreign_labels_are_refused(tmp_path):
    truth, found = two_objects()
    with pytest.raises(ValueError, match='No labels came with 1 images, such as P0001__1024__0___0'):
        score([sample('P0001__1024__0___0', None, found)])
    write_labels(tmp_path / 'labels', 'P0001', truth, classes=('tank', 'ship'))
    with pytest.raises(ValueError, match=r'P0001\.txt names tank; the classes are plane, ship, harbor'):
        score([sample('P0001', None, found)], ann_dir=str(tmp_path / 'labels'))
    with pytest.raises(ValueError, match=r'no labels of 1 images, such as P0002\.txt'):
        score([sample('P0002', None, found)], ann_dir=str(tmp_path / 'labels'))


def test_boxes_that_are_not_rotated_are_refused():
    wrong = NONE._replace(boxes=torch.zeros(0, 8))
    with pytest.raises(ValueError, match='five numbers .* got boxes of 8'):
        score([sample('P0001', None, wrong)], format_only=True, outfile_prefix='x')


def rank_main(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group('gloo', f'file://{folder}/store', rank=rank, world_size=2)
    metric = MergedDOTAMetric()
    metric.dataset_meta = dict(classes=CLASSES)
    patches = cut('P0001', *scene(1))
    shares = patches[rank::2] + (patches[:1] if rank and len(patches) % 2 else [])  # padded, as by DefaultSampler
    for one in shares:
        metric.process({}, [one])
    Path(folder, f'{rank}.json').write_text(json.dumps(metric.evaluate(len(patches))))


def test_two_processes_that_share_the_patches_get_the_score_of_one(tmp_path):
    mp.start_processes(rank_main, (str(tmp_path),), nprocs=2, start_method='fork')
    expected = score(cut('P0001', *scene(1)))
    assert [json.loads((tmp_path / f'{rank}.json').read_text()) for rank in range(2)] == [expected] * 2


def test_what_the_first_process_cannot_score_is_told_to_all(monkeypatch, tmp_path):
    steps = []
    monkeypatch.setattr('mmpeft.mm.rotated.merged_dota.in_all', lambda step: steps.append(step) or step())
    with pytest.raises(ValueError, match=r'has no labels of 1 images, such as P1\.txt'):
        score([sample('P1', *two_objects())], ann_dir=str(tmp_path))
    assert len(steps) == 1
