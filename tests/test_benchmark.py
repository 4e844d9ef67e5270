import csv
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from tiny import image, swin
from tiny_data import tool
from torch.autograd import DeviceType

from mmpeft.costs import peak_bytes
from mmpeft.counting import Operations, operations_of
from mmpeft.hosts.windows import WindowAttention
from mmpeft.measuring import Setting, Variant, largest_operations, measure
from mmpeft.methods import SSF
from mmpeft.mm.checks import UserError
from mmpeft.mm.reports.benchmarking import build, read_method, variants
from mmpeft.plain import PLAIN, PlainWindowAttention

MICRO = 'configs/demo/mona_swin-micro_digits.py'
TINY = ['--size', '32', '48', '--batch', '1', '--repeats', '1']


def of(stock, *methods):
    return {variant.name: variant for variant in variants(stock, {text: read_method(text) for text in methods})}


def test_the_tool_prints_a_table_and_writes_it_with_a_picture(tmp_path, capsys):
    out = tmp_path / 'benchmark'
    tool('benchmark').main([MICRO, '--methods', 'SSF', '--recompute-ffn', *TINY, '--out', str(out)])
    names = ['full', 'frozen', 'SSF, plain', 'SSF', 'SSF, recompute_ffn', 'SSF, merged']
    printed = capsys.readouterr().out
    assert [line.split(' | ')[0].strip('| ') for line in printed.splitlines()[2:]] == names
    rows = {row['name']: row for row in csv.DictReader((out / 'benchmark.csv').open())}
    assert int(rows['full']['operations']) > 500 and rows['full']['operations_of_full'] == '1.0'
    assert rows['full']['waits'] == '0' and rows['SSF, merged']['operations'] == rows['full']['busy'] == ''
    assert list(rows) == names
    assert rows['full']['step_of_full'] == rows['full']['saved_of_full'] == rows['full']['inference_of_stock'] == '1.0'
    saved = [float(rows[name]['saved']) for name in ('SSF, recompute_ffn', 'SSF', 'SSF, plain')]
    assert saved == sorted(saved) and len({*saved}) == 3
    assert rows['SSF, merged']['step'] == '' and rows['frozen']['inference'] == ''
    assert (out / 'benchmark.png').stat().st_size > 10_000
    with pytest.raises(SystemExit, match='holds files already'):
        tool('benchmark').main([MICRO, '--out', str(out)])


def test_a_profile_names_the_operations_that_take_most_of_a_step(tmp_path, capsys):
    out = tmp_path / 'benchmark'
    tool('benchmark').main([MICRO, '--methods', 'Mona', *TINY, '--profile', '--out', str(out)])
    rows = [*csv.DictReader((out / 'operations.csv').open())]
    names = ('full', 'frozen', 'Mona, plain', 'Mona')
    assert [row['name'] for row in rows] == [name for name in names for _ in range(5)]
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith(f'| Mona | {rows[-1]["operation"]} | {rows[-1]["calls"]} |')


def test_a_profile_counts_the_operations_of_one_step():
    class Twice(torch.nn.Sequential):
        def forward(self, x):
            return (super().forward(x),)

    model = Twice(torch.nn.Conv2d(3, 4, 3), torch.nn.Conv2d(4, 4, 3))
    rows = largest_operations([Variant('twice', model)], Setting(size=(32, 32), batch=1), count=1000)
    calls = {row.operation: row.calls for row in rows}
    assert calls['aten::convolution'] == calls['aten::convolution_backward'] == 2
    shares = [row.share for row in rows]
    assert shares == sorted(shares, reverse=True) and sum(shares) == pytest.approx(1)


def test_on_a_gpu_kernels_count_and_not_what_launches_them():
    def event(key, device, count, cpu, gpu):
        times = dict(self_cpu_time_total=cpu, self_device_time_total=gpu)
        return SimpleNamespace(key=key, device_type=device, count=count, **times)

    events = [
        event('cudaLaunchKernel', DeviceType.CPU, 5, 40, 0),
        event('gemm', DeviceType.CUDA, 2, 0, 3000),
        event('Memcpy', DeviceType.CUDA, 3, 0, 1000),
    ]
    rows = operations_of(events, 'model', on_gpu=True)
    assert [(row.operation, row.calls, row.time, row.share) for row in rows] == [
        ('gemm', 2, 3, 0.75),
        ('Memcpy', 3, 1, 0.25),
    ]
    assert [row.operation for row in operations_of(events, 'model', on_gpu=False)] == ['cudaLaunchKernel']


def test_operations_count_without_views_and_a_look_at_a_value_is_a_wait():
    x = torch.ones(2, 3, requires_grad=True)
    with Operations() as seen:
        y = (x.view(6) * 2).sum()
        y.backward()
        y.item()
    assert seen.names['view'] and seen.waits == 1
    assert seen.launched == sum(seen.names[name] for name in ('mul', 'sum', 'ones_like', '_local_scalar_dense'))


@pytest.mark.slow
def test_a_backbone_is_built_without_the_data_sets_of_its_library(tmp_path):
    """Which need imgaug, for one."""
    config = tmp_path / 'config.py'
    config.write_text("default_scope = 'mmdet'\nmodel = dict(backbone=dict(type='SwinTransformer'))\n")
    code = f"""
import sys
sys.modules['imgaug'] = None
from mmpeft.mm.reports.benchmarking import build
names = {{type(build(name, (64, 64))).__module__ for name in ('swin-t', {str(config)!r})}}
print(names, any(name.startswith('mmdet.datasets') for name in sys.modules))
"""
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1:] == ["{'mmdet.models.backbones.swin'} False"], done.stderr


def test_a_ratio_is_the_median_of_those_of_the_rounds(monkeypatch):
    models = list(of(swin(), 'SSF').values())
    clock = iter(range(10**6))
    monkeypatch.setattr('mmpeft.measuring.perf_counter', lambda: next(clock))
    rows = measure(models, Setting(size=(32, 32), batch=1, repeats=3))
    # On a clock that counts its readings a forward pass takes 1 and a step 2.
    assert {(row.forward, row.step, row.step_of_full) for row in rows if row.forward} == {(1000, 2000, 1)}
    assert [row.name for row in rows if row.step_of_plain] == ['SSF']


def test_adapters_are_measured_alone_where_they_are_called_as_modules(monkeypatch):
    models = list(of(swin(), 'Mona', 'SSF').values())
    clock = iter(range(10**6))
    monkeypatch.setattr('mmpeft.measuring.perf_counter', lambda: next(clock))
    rows = {row.name: row for row in measure(models, Setting(size=(32, 32), batch=1, repeats=3))}
    assert {name for name, row in rows.items() if row.adapters} == {'Mona, plain', 'Mona', 'SSF, plain'}
    assert rows['Mona'].adapters == 1000 and rows['Mona'].adapters_of_plain == 1
    assert rows['SSF'].adapters_of_plain is None
    for variant in models:
        assert not any(module._forward_hooks for name, module in variant.model.named_modules() if 'adapters.' in name)


def test_a_method_in_late_blocks_alone_is_measured():
    models = list(of(swin(), "SSF:blocks='stages.3'").values())
    rows = measure(models, Setting(size=(32, 32), batch=1, repeats=1))
    assert 0 < rows[-2].saved < rows[1].saved


def test_models_share_one_base_and_train_nothing_of_it():
    found = of(swin(), 'Mona', 'BitFit')
    weight, bias = 'stages.0.blocks.0.attn.w_msa.qkv.weight', 'stages.0.blocks.0.attn.w_msa.qkv.bias'
    full, *rest = (variant.model for variant in found.values())
    assert len({model.get_parameter(weight) for model in rest}) == 1 and full.get_parameter(weight).requires_grad
    assert not rest[0].get_parameter(bias).requires_grad and found['BitFit'].model.get_parameter(bias).requires_grad


def test_each_method_is_compiled_too_where_that_is_asked_for():
    found = {variant.name: variant for variant in variants(swin(), dict(SSF=read_method('SSF')), compile=True)}
    assert [*found] == ['full', 'frozen', 'SSF, plain', 'SSF', 'SSF, compiled', 'SSF, merged']
    assert [name for name, variant in found.items() if variant.compiled] == ['SSF, compiled']
    assert found['SSF, compiled'].model.stages[0].blocks[0].compiles
    assert not hasattr(found['SSF'].model.stages[0].blocks[0], 'compiles')


def test_gradients_flow_through_the_frozen_limit():
    out = of(swin())['frozen'].model(image())
    assert all(o.requires_grad for o in out)


def test_published_forms_take_the_place_of_ours():
    model = of(swin(), 'SSF')['SSF, plain'].model
    assert {type(m) for m in model.modules() if isinstance(m, SSF)} == {PLAIN[SSF]}
    assert {m.host for m in model.modules() if isinstance(m, WindowAttention)} == {PlainWindowAttention}


@torch.no_grad()
def operations(model, x):
    with Operations() as seen:
        model.eval()
        model(x)
    return seen.names


@pytest.mark.parametrize('method', ['SSF', 'LoRA:rank=2'])
def test_a_merged_model_runs_the_stock_operations_and_no_other(method):
    found, x = of(swin(), method), image()
    stock = operations(found['full'].model, x)
    assert operations(found[f'{method}, merged'].model, x) == stock != operations(found[method].model, x)


@pytest.mark.parametrize('name, millions', [('swin-t', 27.52), ('vit-b', 85.80)])
def test_a_backbone_has_its_size(name, millions):
    count = sum(p.numel() for p in build(name, (224, 224)).parameters())
    assert count / 1e6 == pytest.approx(millions, rel=1e-3)


@pytest.mark.skipif(not torch.cuda.is_available() and peak_bytes(int, torch.device('cpu')) is None, reason='not Linux')
def test_the_peak_is_that_of_the_run():
    assert 60e6 < peak_bytes(lambda: torch.ones(16_000_000), torch.device('cpu')) < 80e6


@pytest.mark.parametrize(
    'argument, message',
    [
        (['swin-x'], "No backbone 'swin-x'; there are swin-t, .*, and config files"),
        ([MICRO, '--methods', 'Nona'], "Unknown method 'Nona'; known methods: Mona"),
        ([MICRO, '--methods', 'Mona:width=3'], "Mona has no option 'width'"),
        ([MICRO, '--methods', 'Mona:dropout=a+b'], r"'Mona:dropout=a\+b' does not read as NAME:KEY=VALUE"),
        ([MICRO, '--methods', 'Mona:bottleneck=0'], 'at least 1, got dim=.*, bottleneck=0'),
    ],
)
def test_what_cannot_be_measured_is_named(argument, message):
    with pytest.raises(SystemExit, match=message):
        tool('benchmark').main([*argument, *TINY])


def test_a_method_that_does_not_read_is_a_users_error():
    with pytest.raises(UserError, match='NAME:KEY=VALUE'):
        read_method('Mona:64')
