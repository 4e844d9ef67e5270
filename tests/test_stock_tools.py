"""The tools that mmdet, mmseg and mmrotate ship themselves, on configs that name mmpeft and nothing else."""

import os
import subprocess
import sys
from pathlib import Path

import mmdet
import mmrotate
import mmseg
import torch
from mmengine.config import Config
from test_detector import HOOK, detector_config, folder, retinanet  # noqa: F401  folder is a fixture
from tiny import SWIN, same, trained, with_constructor, wrapped
from tiny_data import ROTATED, SEGMENTOR, write_data


def stock(library, tool: str, *arguments) -> str:
    path = Path(library.__file__).parent / f'.mim/tools/{tool}.py'
    # One thread, as in this process: sums in another order would not be equal to the bit.
    environment = dict(os.environ, OMP_NUM_THREADS='1')
    command = [sys.executable, path, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout + done.stderr


def test_mmdets_own_tools_train_and_test_an_untouched_config_with_the_hook_in_one_line(folder):  # noqa: F811
    cfg = detector_config(folder, retinanet(2, SWIN), custom_hooks=[dict(HOOK, allow_random_base=True)])
    cfg.dump(folder / 'detector.py')
    stock(mmdet, 'train', folder / 'detector.py', '--work-dir', folder / 'stock')
    by_hook = torch.load(folder / 'stock/iter_2.pth', weights_only=False)['state_dict']

    ours = detector_config(folder, retinanet(2, wrapped(allow_random_base=True)))
    ours.custom_hooks = [dict(type='mmpeft.AdapterReportHook')]
    assert same(by_hook, trained(with_constructor(ours)).model.state_dict())

    dumped = folder / 'stock/detector.py'
    assert Config.fromfile(dumped).model.backbone.type == 'mmpeft.AdaptedBackbone'
    assert 'bbox_mAP' in stock(mmdet, 'test', dumped, folder / 'stock/iter_2.pth', '--work-dir', folder / 'test')


def test_mmsegs_own_tool_trains_an_adapted_segmentor(tmp_path):
    config = tmp_path / 'segmentor.py'
    config.write_text(SEGMENTOR.format(root=write_data(tmp_path / 'data')))
    log = stock(mmseg, 'train', config, '--work-dir', tmp_path / 'work')
    assert (tmp_path / 'work/iter_2.pth').is_file() and 'is skipped since' not in log


def test_mmrotates_own_tool_trains_an_adapted_rotated_detector(tmp_path):
    config = tmp_path / 'rotated.py'
    config.write_text(ROTATED.format(root=write_data(tmp_path / 'data')))
    stock(mmrotate, 'train', config, '--work-dir', tmp_path / 'work')
    assert (tmp_path / 'work/epoch_1.pth').is_file()
