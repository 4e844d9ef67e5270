"""Adapter files in the inference APIs and tools of mmdet, mmseg and mmrotate, in a fresh process."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import mmdet
import pytest
import torch
from inference import raw
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from test_checkpoint import moved
from test_detector import detector_config, folder, retinanet  # noqa: F401  folder is a fixture
from test_stock_tools import stock
from tiny import pretrained, trained, wrapped
from tiny_data import ROTATED, SEGMENTOR, write_data

import mmpeft
from mmpeft.mm.checks import register_library
from mmpeft.mm.running import run

CLASSES = dict(segmentor=['ground', 'thing'], rotated=['plane', 'ship'])


@pytest.fixture
def detector(folder):  # noqa: F811
    """The config of a detector, and its trained model."""
    cfg = detector_config(folder, retinanet(2, wrapped(pretrained(folder))))
    cfg.custom_hooks = [dict(type='mmpeft.AdapterCheckpointHook')]
    model = trained(cfg).model
    cfg.visualizer = dict(type='DetLocalVisualizer', vis_backends=[dict(type='LocalVisBackend')])
    cfg.dump(folder / 'work/detector.py')
    return folder / 'work/detector.py', model


def saved(tmp_path, name, text):
    """A model of another library after a change of all that trains: its outputs, the config and the adapter file."""
    config = tmp_path / f'{name}.py'
    base = pretrained(tmp_path)
    config.write_text(text.format(root=write_data(tmp_path / f'{name}_data')))
    cfg = Config.fromfile(config)
    backbone = cfg.model.backbone
    backbone.pop('allow_random_base')
    backbone.backbone.update({key: value for key, value in base.items() if key != 'type'})
    cfg.dump(config)
    register_library(cfg.default_scope)
    init_default_scope(cfg.default_scope)
    model = MODELS.build(cfg.model)
    model.init_weights()
    moved(model)
    file = tmp_path / f'{name}.safetensors'
    task = dict(classes=CLASSES[name], palette=[(0, 0, 0), (255, 0, 0)])
    mmpeft.save_adapters(model, file, dataset_meta=task)
    return raw(model), config, file


def test_every_inference_api_gives_the_outputs_of_the_training_process(detector, tmp_path):
    config, model = detector
    adapters = config.parent / 'adapters_last.safetensors'
    segmentor, rotated = saved(tmp_path, 'segmentor', SEGMENTOR), saved(tmp_path, 'rotated', ROTATED)
    jobs = dict(
        init_detector=(config, adapters),
        DetInferencer=(config, adapters),
        init_model=segmentor[1:],
        MMSegInferencer=segmentor[1:],
        rotated=rotated[1:],
    )
    apis = dict(rotated='init_detector')
    (tmp_path / 'jobs.json').write_text(
        json.dumps({name: [apis.get(name, name), *map(str, files)] for name, files in jobs.items()})
    )
    script = Path(__file__).with_name('inference.py')
    # Another folder and one thread: no path may hold by chance, and sums in another order are not equal to the bit.
    done = subprocess.run(
        [sys.executable, script, tmp_path / 'jobs.json', tmp_path / 'out.pth'],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=dict(os.environ, OMP_NUM_THREADS='1'),
    )
    assert done.returncode == 0, done.stderr[-3000:]
    results = torch.load(tmp_path / 'out.pth')
    expected = dict.fromkeys(('init_detector', 'DetInferencer'), (raw(model), ['a', 'b']))
    expected |= dict.fromkeys(('init_model', 'MMSegInferencer'), (segmentor[0], CLASSES['segmentor']))
    expected['rotated'] = rotated[0], CLASSES['rotated']
    for name, (outputs, classes) in expected.items():
        assert results[name]['classes'] == classes
        for a, b in zip(results[name]['raw'], outputs, strict=True):
            assert torch.equal(a, b), name
    assert 'missing keys in source' not in done.stdout + done.stderr


def test_mmdets_own_test_tool_gives_an_adapter_file_the_score_of_the_checkpoint(detector):
    config, _ = detector
    work = config.parent
    logs = [
        stock(mmdet, 'test', config, work / name, '--work-dir', work / 'test')
        for name in ('iter_2.pth', 'adapters_last.safetensors')
    ]
    scores = [re.findall(r'bbox_mAP\w*: -?[\d.]+', log) for log in logs]
    assert scores[0] and scores[0] == scores[1]


def test_our_own_test_tool_gives_an_adapter_file_the_score_of_the_checkpoint(detector):
    config, _ = detector
    work = config.parent
    scores = [
        run.test(str(config), str(work / name), work_dir=str(work / 'test'))
        for name in ('iter_2.pth', 'adapters_last.safetensors')
    ]
    assert scores[0] and scores[0] == scores[1]


def test_our_own_test_tool_refuses_an_adapter_file_of_another_head(detector):
    config, _ = detector
    options = {'model.bbox_head.stacked_convs': 2}
    with pytest.raises(mmpeft.WrongModelError, match='bbox_head'):
        run.test(str(config), str(config.parent / 'adapters_last.safetensors'), cfg_options=options)
