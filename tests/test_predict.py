"""Three libraries on one base: a bank from a YAML file, and the tool that runs one image through its tasks."""

import copy
import shutil

import cv2
import numpy as np
import pytest
import torch
import yaml
from mmdet.apis import inference_detector, init_detector
from mmengine.config import Config
from mmengine.registry import MODELS
from test_checkpoint import moved
from test_detector import detector_config, retinanet
from tiny import pretrained, wrapped
from tiny_data import ROTATED, SEGMENTOR, tool, write_data

import mmpeft
from mmpeft.fingerprint import base_names
from mmpeft.mm.bank import load_bank, scope_of
from mmpeft.mm.checks import UserError, register_library
from mmpeft.mm.predicting import find

CLASSES = dict(detection=['a', 'b'], segmentation=['ground', 'thing'], rotated=['plane', 'ship'])


def config_of(name, folder):
    """A config on the base in ``folder``, as it stands in a work dir."""
    backbone = wrapped(pretrained(folder))
    if name == 'detection':
        return detector_config(folder, retinanet(2, backbone))
    text = dict(segmentation=SEGMENTOR, rotated=ROTATED)[name]
    (folder / 'text.py').write_text(text.format(root=folder / 'data'))
    cfg = Config.fromfile(folder / 'text.py')
    cfg.model.backbone = dict(backbone, backbone=dict(backbone['backbone'], type='mmdet.SwinTransformer'))
    if name == 'rotated':
        cfg.model.bbox_head.num_classes, cfg.model.test_cfg.score_thr = 2, 0.0
    return cfg


@pytest.fixture(scope='module')
def written(tmp_path_factory):
    """The folder of a bank of three tasks, and each task's own model as it came out of training."""
    folder = tmp_path_factory.mktemp('bank')
    write_data(folder / 'data')
    own = {}
    for seed, name in enumerate(CLASSES, 1):
        cfg = config_of(name, folder)
        cfg.dump(folder / f'{name}.py')
        register_library(cfg.default_scope)
        with scope_of(cfg):
            own[name] = MODELS.build(copy.deepcopy(cfg.model))
            own[name].init_weights()
        moved(own[name], seed).eval()
        own[name].cfg = cfg
        mmpeft.save_adapters(own[name], folder / f'{name}.safetensors', dataset_meta=dict(classes=CLASSES[name]))
    tasks = {name: dict(config=f'{name}.py', file=f'{name}.safetensors') for name in CLASSES}
    (folder / 'bank.yaml').write_text(yaml.safe_dump(dict(tasks=tasks), sort_keys=False))
    return folder, own


def predictions(sample) -> dict[str, torch.Tensor]:
    if 'pred_sem_seg' in sample:
        return dict(logits=sample.seg_logits.data)
    found = sample.pred_instances
    return dict(boxes=getattr(found.bboxes, 'tensor', found.bboxes), scores=found.scores, labels=found.labels)


def test_tasks_of_three_libraries_on_one_base_predict_what_their_own_models_do(written):
    folder, own = written
    bank, image = load_bank(folder / 'bank.yaml'), str(folder / 'data/train/0.jpg')
    assert bank.list() == [*CLASSES]
    for name, model in own.items():
        expected = predictions(find(model, image))
        found = predictions(find(bank.task(name), image))
        assert all(torch.equal(found[key], expected[key]) for key in expected) and len(next(iter(found.values())))
    backbones = [bank.task(name).backbone for name in CLASSES]
    for tensor in base_names(backbones[0]):
        assert len({backbone.get_parameter(tensor).data_ptr() for backbone in backbones}) == 1


def test_a_detector_in_a_bank_predicts_what_mmdets_own_api_does(written):
    folder, _ = written
    image = str(folder / 'data/train/0.jpg')
    stock = init_detector(str(folder / 'detection.py'), str(folder / 'detection.safetensors'), 'random', 'cpu')
    expected = predictions(inference_detector(stock, image))
    found = predictions(find(load_bank(folder / 'bank.yaml', ['detection']).task('detection'), image))
    assert all(torch.equal(found[key], expected[key]) for key in expected)


def test_the_tool_draws_the_tasks_side_by_side(written, tmp_path, capsys):
    folder, _ = written
    out = tmp_path / 'picture.png'
    arguments = [str(folder / 'data/train/1.jpg'), '--bank', str(folder / 'bank.yaml'), '--out', str(out)]
    tool('predict').main([*arguments, '--task', 'rotated', 'segmentation', '--min-score', '0'])
    lines = capsys.readouterr().out.splitlines()[-3:]
    assert lines[0].startswith('rotated: ') and lines[1].startswith('segmentation: ')
    assert lines[2] == f'The picture is {out}.'
    picture = cv2.imread(str(out))
    assert picture.shape[1] > 1.5 * picture.shape[0] and len(np.unique(picture)) > 20
    with pytest.raises(SystemExit, match='picture.png exists; name another file with --out'):
        tool('predict').main(arguments)


def test_a_file_without_class_names_is_not_drawn(written, tmp_path):
    folder, own = written
    mmpeft.save_adapters(own['detection'], tmp_path / 'nameless.safetensors')
    tasks = dict(nameless=dict(config=str(folder / 'detection.py'), file='nameless.safetensors'))
    (tmp_path / 'bank.yaml').write_text(yaml.safe_dump(dict(tasks=tasks)))
    arguments = [str(folder / 'data/train/0.jpg'), '--bank', str(tmp_path / 'bank.yaml')]
    with pytest.raises(SystemExit, match='task nameless does not name its classes'):
        tool('predict').main([*arguments, '--out', str(tmp_path / 'picture.png')])


def test_a_base_that_nobody_names_is_named_in_the_yaml_file(written, tmp_path):
    folder, _ = written
    text = (folder / 'detection.py').read_text().replace(str(folder / 'base.pth'), str(folder / 'gone.pth'))
    (tmp_path / 'detection.py').write_text(text)
    shutil.copy(folder / 'detection.safetensors', tmp_path)
    tasks = dict(tasks=dict(detection=dict(config='detection.py', file='detection.safetensors')))
    (tmp_path / 'bank.yaml').write_text(yaml.safe_dump(tasks))
    with pytest.raises(UserError, match='base of .*detection.safetensors was not found; name its checkpoint as base:'):
        load_bank(tmp_path / 'bank.yaml')
    (tmp_path / 'bank.yaml').write_text(yaml.safe_dump(dict(tasks, base=str(folder / 'base.pth'))))
    assert load_bank(tmp_path / 'bank.yaml').list() == ['detection']


def test_a_task_that_trains_the_base_may_be_the_first(written, tmp_path):
    folder, own = written
    cfg = config_of('detection', tmp_path)
    cfg.model.backbone.method = dict(type='BitFit')
    cfg.dump(tmp_path / 'tuned.py')
    model = MODELS.build(copy.deepcopy(cfg.model))
    model.init_weights()
    mmpeft.save_adapters(moved(model), tmp_path / 'tuned.safetensors', dataset_meta=dict(classes=['a', 'b']))
    tasks = dict(tuned=dict(config='tuned.py', file='tuned.safetensors'))
    tasks['rotated'] = dict(config=str(folder / 'rotated.py'), file=str(folder / 'rotated.safetensors'))
    (tmp_path / 'bank.yaml').write_text(yaml.safe_dump(dict(tasks=tasks), sort_keys=False))
    bank, image = load_bank(tmp_path / 'bank.yaml'), str(folder / 'data/train/0.jpg')
    expected, found = predictions(find(own['rotated'], image)), predictions(find(bank.task('rotated'), image))
    assert all(torch.equal(found[key], expected[key]) for key in expected)
    assert all(torch.equal(value, bank.task('tuned').state_dict()[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    'text, message',
    [
        ('tasks: [', 'is no YAML'),
        ('tasks: {}', 'describes no bank; it has to read tasks: {NAME: {config: FILE, file: FILE}'),
        ('tasks: {a: {config: a.py}}', 'describes no bank'),
        ('tasks: {a: {config: a.py, file: a.safetensors}}\nbases: x', 'describes no bank'),
        ('tasks: {a: {config: a.py, file: a.safetensors}}', 'No config file .*a.py'),
        ('tasks: {a: {config: detection.py, file: a.safetensors}}', 'No checkpoint file .*a.safetensors'),
        ('tasks: {a: {config: detection.py, file: base.pth}}', 'base.pth is no adapter file'),
    ],
)
def test_a_yaml_file_that_cannot_be_used_is_told_in_a_line(text, message, written):
    folder, _ = written
    (folder / 'other.yaml').write_text(text)
    with pytest.raises(UserError, match=message):
        load_bank(folder / 'other.yaml')


def test_what_the_user_names_is_checked_first(written, tmp_path):
    folder, _ = written
    image, bank = str(folder / 'data/train/0.jpg'), str(folder / 'bank.yaml')
    wrong = {
        'No image none.jpg': ['none.jpg', '--bank', bank],
        'cannot be read as an image': [str(folder / 'base.pth'), '--bank', bank],
        'No file none.yaml': [image, '--bank', 'none.yaml'],
        "has no task 'c'; it has detection, segmentation, rotated": [image, '--bank', bank, '--task', 'c'],
        '--device cuda:9 cannot be used': [image, '--bank', bank, '--task', 'detection', '--device', 'cuda:9'],
    }
    for message, arguments in wrong.items():
        with pytest.raises(SystemExit, match=message):
            tool('predict').main([*arguments, '--out', str(tmp_path / 'picture.png')])
    assert not any(tmp_path.iterdir())
