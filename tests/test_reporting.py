import csv
import json

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from test_trainings import SCORES
from tiny import SWIN, runner_config, swin, wrapped
from tiny_data import tool

import mmpeft
from mmpeft.costs import flops, saved_bytes
from mmpeft.mm.checks import UserError
from mmpeft.mm.reports.costs import costs
from mmpeft.mm.reports.runs import METRICS, read_run

FULL = 'configs/demo/full_swin-micro_digits.py'
DEMO = 'configs/demo/mona_swin-micro_digits.py'


@pytest.fixture
def config(tmp_path):
    path = tmp_path / 'tiny.py'
    runner_config(tmp_path, wrapped(dict(SWIN, type='mmdet.SwinTransformer'))).dump(path)
    return str(path)


def test_a_linear_layer_costs_two_operations_for_each_weight_and_keeps_its_input():
    layer, x = torch.nn.Linear(5, 7), torch.randn(3, 5)
    assert flops(lambda: layer(x)) == 2 * 3 * 5 * 7
    assert saved_bytes(layer, lambda: layer(x)) == x.nbytes


def test_what_two_operations_keep_counts_once():
    layer, x = torch.nn.Linear(5, 7), torch.randn(3, 5)
    assert saved_bytes(layer, lambda: layer(x) + layer(x)) == x.nbytes


@pytest.mark.parametrize('method', ['Mona', 'SSF', 'CVPT', 'LoRA', 'Adapter', 'BitFit', 'Full'])
def test_what_tensors_without_content_tell_is_what_real_ones_need(config, method):
    torch.manual_seed(0)
    backbone = swin()
    mmpeft.inject(backbone, dict(type=method))
    mmpeft.freeze(backbone)
    image = torch.randn(1, 3, 48, 64)
    cfg = Config.fromfile(config)
    cfg.model.backbone.method = dict(type=method)
    cfg.dump(config)
    row = costs(config, (48, 64))
    assert row.gflops * 1e9 == pytest.approx(flops(lambda: backbone.eval()(image)))
    backbone.train()
    assert row.activations * 1e6 == pytest.approx(saved_bytes(backbone, lambda: backbone(image)))


def test_the_numbers_of_parameters_and_bytes_are_those_of_the_model(config, tmp_path):
    cfg = Config.fromfile(config)
    model = MODELS.build(cfg.model)
    counts = mmpeft.count_parameters(model.backbone)
    row = costs(config, (48, 64))
    assert (row.name, row.methods) == ('tiny', 'Mona')
    assert row.trainable * 1e6 == pytest.approx(counts.trainable)
    assert (row.percent_of_base, row.percent_of_all) == (counts.percent_of_base, counts.percent_of_all)
    assert row.optimizer == pytest.approx(8 * row.whole)  # AdamW: two numbers of four bytes for each
    model.backbone.missing = frozenset()
    mmpeft.save_adapters(model, tmp_path / 'task.safetensors')
    size = (tmp_path / 'task.safetensors').stat().st_size / 1e6
    assert row.file < size < row.file + 0.05  # a header comes on top


def work_dir(folder, name, scores):
    """What a training of the demo leaves behind."""
    path = folder / name
    (path / '20260101_000000/vis_data').mkdir(parents=True)
    lines = [dict(step=i, loss=1 / i) for i in (1, 2)] + [{'step': i, 'coco/bbox_mAP': s} for i, s in enumerate(scores)]
    (path / '20260101_000000/vis_data/scalars.json').write_text('\n'.join(map(json.dumps, lines)))
    Config.fromfile(DEMO).dump(path / 'mona.py')
    return str(path)


def test_the_tool_prints_a_table_and_writes_it_with_pictures(tmp_path, capsys):
    runs = [work_dir(tmp_path, 'one', [0.1, 0.3, 0.2]), work_dir(tmp_path, 'two', [0.1])]
    out = tmp_path / 'report'
    tool('report').main([*runs, FULL, '--shape', '64', '64', '--out', str(out)])
    printed = capsys.readouterr().out.strip()
    assert printed == (out / 'report.md').read_text().strip()
    rows = list(csv.DictReader((out / 'report.csv').open()))
    assert [row['name'] for row in rows] == ['one', 'two', 'full_swin-micro_digits']
    assert [row['score'] for row in rows] == ['0.3', '0.1', ''] and rows[0]['last'] == '0.2'
    assert {path.name for path in out.glob('*.png')} == {'costs.png', 'runs.png', 'scores.png'}
    with pytest.raises(SystemExit, match='holds files already'):
        tool('report').main([FULL, '--out', str(out)])


def test_a_work_dir_without_a_log_or_without_the_score_is_refused(tmp_path):
    with pytest.raises(UserError, match='holds no log of a training'):
        read_run(tmp_path)
    with pytest.raises(UserError, match=r'has no score mIoU; it has coco/bbox_mAP, loss, step'):
        read_run(work_dir(tmp_path, 'one', [0.1]), 'mIoU')


def test_the_score_of_every_data_set_that_configs_train_on_is_known():
    assert {*SCORES.values()} <= {*METRICS}
