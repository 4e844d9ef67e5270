"""``compile=True``: adapters and feed-forwards by compiled code, which the compiler makes few graphs for."""

import copy
import pickle
import time
import warnings

import pytest
import torch
import torch.multiprocessing as mp
from mmengine.config import Config
from mmengine.registry import MODELS
from tiny import HOSTS, MONA, SWIN, convnext, image, pretrained, runner_config, swin, trained, wrapped
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

import mmpeft
from mmpeft import compiling
from mmpeft.checkpoint import read_adapters
from mmpeft.mm.reports.benchmarking import build
from mmpeft.mm.running.config import inject_at_build

PLAIN = MONA | dict(dropout=0.0)
SIZES = [(40, 48), (30, 44), (64, 64), (48, 40), (24, 24), (72, 16), (33, 57), (16, 80), (56, 40), (80, 64)]


class Graphs(list):
    """A backend that runs graphs as they are, and keeps them."""

    __hash__ = object.__hash__

    def __call__(self, graph, inputs):
        self.append(graph)
        return graph.forward


@pytest.fixture(scope='module')
def backend():
    return Graphs()


@pytest.fixture
def graphs(backend, monkeypatch):
    """What the compiler makes, of which the tests of this file find what those before them left."""
    monkeypatch.setattr(compiling, 'BACKEND', backend)
    return backend


def pair(host='mmseg ViT', method=PLAIN, **options):
    """The same adapted backbone twice; the second one compiles."""
    plain = HOSTS[host](**options)
    both = plain, copy.deepcopy(plain)
    for backbone, compile in zip(both, (False, True), strict=True):
        mmpeft.inject(backbone, method, compile=compile)
        mmpeft.freeze(backbone)
        backbone.train()
    return both


def step(backbone, x, autocast=False):
    """Outputs and gradients."""
    backbone.zero_grad()
    with torch.autocast('cpu', torch.bfloat16, enabled=autocast):
        outputs = backbone(x)
    sum(out.float().square().mean() for out in outputs).backward()
    return [*outputs, *(p.grad for p in backbone.parameters() if p.grad is not None)]


def agree(both, x, most=1e-5, **options):
    ours, theirs = (step(backbone, x, **options) for backbone in reversed(both))
    assert len(ours) == len(theirs) > 4
    for a, b in zip(ours, theirs, strict=True):
        assert (a - b).norm() <= most * b.norm() + 1e-7


def test_ten_sizes_and_two_batches_take_one_graph_for_each_kind_and_mode(graphs):
    both, before = pair(), len(graphs)
    for size in SIZES:
        for batch in (1, 2):
            agree(both, image(*size, batch))
    # Mona, Mona whose input needs no gradient, and the feed-forward.
    assert len(graphs) - before == 3
    for backbone in both:
        backbone.eval()
    with torch.no_grad():
        for size in SIZES:
            x = image(*size, 1 + size[0] % 2)
            torch.testing.assert_close(both[1](x), both[0](x))
    assert len(graphs) - before == 5
    assert not compiling._failed


@pytest.mark.parametrize('options', [dict(with_cp=True), dict(drop_path_rate=0.5)])
def test_checkpoints_and_drop_path_compile_to_no_graph_of_their_own(graphs, options):
    agree(pair(), image(40, 48))
    before, both = len(graphs), pair(**options)
    for backbone in both:
        torch.manual_seed(1)
        backbone.results = step(backbone, image(40, 48))
    for a, b in zip(both[0].results, both[1].results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
    assert len(graphs) == before


def test_recomputed_feed_forwards_compile_too(graphs):
    plain, backbone = pair()[0], HOSTS['mmseg ViT']()
    mmpeft.inject(backbone, PLAIN, recompute_ffn=True, compile=True)
    mmpeft.freeze(backbone)
    backbone.load_state_dict(plain.state_dict())
    before = len(graphs)
    agree((plain, backbone.train()), image(40, 48))
    assert len(graphs) <= before + 3


def test_copies_use_the_graphs_of_the_original_and_names_are_those_without(graphs):
    both, x = pair(), image(40, 48)
    agree(both, x)
    before = len(graphs)
    copies = copy.deepcopy(both[1]), pickle.loads(pickle.dumps(both[1]))
    for other in copies:
        agree((both[0], other), x)
        assert other.state_dict().keys() == both[0].state_dict().keys()
    assert len(graphs) == before


def test_under_autocast_results_are_those_without_to_its_rounding(graphs):
    agree(pair(), image(40, 48), most=0.02, autocast=True)


def test_merging_leaves_no_trace():
    backbone = swin()
    mmpeft.inject(backbone, dict(type='LoRA', rank=2), compile=True)
    assert backbone.stages[0].blocks[0].compiles
    assert mmpeft.merge(backbone).is_stock
    assert not any('compiles' in vars(module) for module in backbone.modules())


def test_a_compiler_that_fails_is_warned_of_once_and_all_runs_without_it(monkeypatch):
    def fail(graph, inputs):
        raise OSError('no g++ here')

    monkeypatch.setattr(compiling, 'BACKEND', fail)
    monkeypatch.setattr(compiling, '_failed', set())
    both, x = pair(), image(40, 48)
    with pytest.warns(RuntimeWarning, match='torch.compile failed.* the first is Mona: .*no g[+][+] here') as seen:
        for _ in range(2):
            agree(both, x, most=0)
    assert len([w for w in seen if 'torch.compile' in str(w.message)]) == 1
    assert {kind[1].__name__ for kind in compiling._failed} == {'Mona', 'TransformerEncoderLayer'}


def test_what_has_no_values_and_what_is_compiled_as_a_whole_is_not_compiled_in_parts(monkeypatch):
    monkeypatch.setattr(compiling, 'BACKEND', None)
    backbone, x = pair()[1].eval(), image(40, 48)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter('error', RuntimeWarning)
        expected = pair()[0].eval()
        expected.load_state_dict(backbone.state_dict())
        whole = torch.compile(backbone, backend='eager', fullgraph=True)(x)
        torch.testing.assert_close(whole, expected(x), rtol=1e-4, atol=1e-5)


def test_a_backbone_without_transformer_blocks_is_refused_and_stays_as_it_is():
    backbone = convnext()
    with pytest.raises(ValueError, match='compile works in transformer blocks, and ConvNeXt has none; leave it out'):
        mmpeft.inject(backbone, dict(type='SSF'), compile=True)
    assert type(backbone) is type(convnext())


def test_wrapper_name_and_hook_set_it_and_leave_it_off_by_default():
    for config in (wrapped(), dict(SWIN, type='mmpeft.MonaSwinTransformer', bottleneck=4)):
        assert not MODELS.build(config).stages[0].blocks[0].compiles
        assert MODELS.build(dict(config, compile=True)).stages[0].blocks[0].compiles
    hooks = [dict(type='mmpeft.MonaHook', compile=True)]
    cfg = Config(dict(model=dict(type='ToyModel', backbone=dict(SWIN)), custom_hooks=hooks))
    inject_at_build(cfg)
    assert cfg.model.backbone.compile is True and 'recompute_ffn' not in cfg.model.backbone


def rank_main(rank: int, folder) -> None:
    """Two steps of two sizes in one of two processes, without and with a compiler."""
    torch.set_num_threads(1)
    compiling.BACKEND = 'aot_eager'
    store = f'file://{folder}/store'
    distributed.init_process_group('gloo', init_method=store, rank=rank, world_size=2)
    torch.manual_seed(0)
    for name, backbone in zip(('plain', 'compiled'), pair('mmdet Swin'), strict=True):
        model = DistributedDataParallel(backbone)
        optimizer = torch.optim.SGD([p for p in backbone.parameters() if p.requires_grad], lr=0.1)
        for seed, size in enumerate([(40, 48), (64, 56)]):
            torch.manual_seed(10 * seed + rank)
            loss = sum(out.square().mean() for out in model(image(*size)))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        torch.save(backbone.state_dict(), folder / f'{name}{rank}.pt')
    assert not compiling._failed
    distributed.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize('host', HOSTS)
def test_every_host_computes_the_same(host, graphs):
    methods = [PLAIN, dict(type='SSF', sites=['norm1', 'fc1', 'fc2'])]
    for batch in (1, 2):
        agree(pair(host, methods), image(40, 48, batch), most=1e-3)
    assert graphs and not compiling._failed


@pytest.mark.slow
def test_two_processes_train_to_the_same_weights_as_without(tmp_path):
    mp.spawn(rank_main, args=(tmp_path,), nprocs=2)
    plain, first, second = (torch.load(tmp_path / f'{name}.pt') for name in ('plain0', 'compiled0', 'compiled1'))
    for name, tensor in plain.items():
        assert torch.equal(first[name], second[name])
        torch.testing.assert_close(first[name], tensor, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_a_runner_trains_an_average_too_and_writes_the_adapter_file_of_one_that_does_not_compile(tmp_path, monkeypatch):
    graphs, files = Graphs(), []
    monkeypatch.setattr(compiling, 'BACKEND', graphs)
    hooks = [dict(type='mmpeft.AdapterCheckpointHook'), dict(type='EMAHook', momentum=0.3)]
    for compile in (False, True):
        backbone = wrapped(pretrained(tmp_path, with_cp=True), PLAIN, compile=compile)
        folder = tmp_path / str(compile)
        runner = trained(runner_config(folder, backbone, custom_hooks=hooks))
        files.append(read_adapters(folder / 'adapters_last.safetensors'))
    assert runner.model.backbone.stages[0].blocks[0].compiles and not compiling._failed
    # Mona and feed-forwards of four widths, and the first Mona, whose input needs no gradient.
    assert len(graphs) == 9
    plain, compiled = files
    assert plain.info == compiled.info and plain.tensors.keys() == compiled.tensors.keys()
    for name, tensor in plain.tensors.items():
        torch.testing.assert_close(compiled.tensors[name], tensor, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_a_swin_t_compiles_in_two_minutes_to_one_graph_for_each_kind_width_and_mode(tmp_path, monkeypatch, capsys):
    from torch._inductor.compile_fx import compile_fx

    def backend(graph, inputs):
        graphs.append(graph)
        return compile_fx(graph, inputs)

    graphs = []
    monkeypatch.setattr(compiling, 'BACKEND', backend)
    monkeypatch.setenv('TORCHINDUCTOR_CACHE_DIR', str(tmp_path))
    plain = build('swin-t', (224, 224))
    for module in plain.modules():
        if hasattr(module, 'drop_prob'):
            module.drop_prob = 0.0
    both = plain, copy.deepcopy(plain)
    for backbone, compile in zip(both, (False, True), strict=True):
        mmpeft.inject(backbone, dict(type='Mona', dropout=0.0), compile=compile)
        mmpeft.freeze(backbone)
        backbone.train()
    start = time.perf_counter()
    for size, batch in ((224, 2), (160, 1)):
        sum(out.sum() for out in both[1](image(size, size, batch))).backward()
    took = time.perf_counter() - start
    with capsys.disabled():
        print(f'\n{len(graphs)} graphs of a training Swin-T in {took:.0f} s')
    assert len(graphs) == 9
    agree(both, image(96, 128, 1), most=1e-4)
    for backbone in both:
        backbone.eval()
    with torch.no_grad():
        for batch in (1, 2):
            x = image(96, 128, batch)
            torch.testing.assert_close(both[1](x), both[0](x), rtol=1e-4, atol=1e-4)
    assert len(graphs) == 9 + 8 and not compiling._failed
    assert took < 120
