"""Two processes over gloo on the CPU."""

import os
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.multiprocessing as mp
from mmdet.models.backbones.swin import SwinBlock
from mmengine.registry import FUNCTIONS, MODELS
from mmengine.runner import FlexibleRunner
from tiny import SWIN, pretrained, runner_config, same, trained, wrapped
from torch.distributed.fsdp.wrap import size_based_auto_wrap_policy, transformer_auto_wrap_policy

import mmpeft
from mmpeft.checkpoint import read_adapters

HOOK = dict(type='mmpeft.MonaHook', bottleneck=4, dropout=0.0)
MONA = dict(type='Mona', bottleneck=4, dropout=0.0)
FILES = dict(type='mmpeft.AdapterCheckpointHook')
EMA = dict(type='EMAHook', momentum=0.3)
WAYS = {
    'wrapper': lambda base: dict(backbone=wrapped(base, MONA), custom_hooks=[FILES]),
    'hook': lambda base: dict(backbone=base, custom_hooks=[HOOK]),
}
RUNS = [(way, ema) for way in WAYS for ema in (False, True)]
# mmengine's 'full' offloads to the memory of the host, where everything lies already and torch crashes.
FULL = dict(
    state_dict_type='FULL_STATE_DICT',
    state_dict_config=dict(type='FullStateDictConfig', rank0_only=True),
    optim_state_dict_config=dict(type='FullOptimStateDictConfig', rank0_only=True),
)


def config(folder: Path, way: str, ema: bool, batch_size: int, base: dict, **changes):
    options = WAYS[way](base)
    options['custom_hooks'] = [*options['custom_hooks'], *[EMA] * ema]
    name = f'{way}_ema' if ema else way
    cfg = runner_config(folder / name, options.pop('backbone'), **options, experiment_name=f'{folder}{name}', **changes)
    cfg.train_dataloader.batch_size = batch_size
    cfg.optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.1, momentum=0.9))
    return cfg


@FUNCTIONS.register_module()
def wrap_blocks(**options) -> bool:
    """FSDP's policy by which each block of a Swin is a unit of its own."""
    return transformer_auto_wrap_policy(transformer_layer_cls={SwinBlock}, **options)


@FUNCTIONS.register_module()
def wrap_parts(**options) -> bool:
    """FSDP's policy by which whatever has some size is a unit of its own."""
    return size_based_auto_wrap_policy(min_num_params=500, **options)


def rank_main(rank: int, folder: Path, base: dict) -> None:
    torch.set_num_threads(1)
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE='2')
    torch.distributed.init_process_group('gloo', f'file://{folder}/store', rank=rank, world_size=2)
    wrapper = dict(type='MMDistributedDataParallel', device_ids=None, broadcast_buffers=False)
    own = folder / f'rank{rank}'
    for way, ema in RUNS:
        runner = trained(config(own, way, ema, 1, base, launcher='pytorch', model_wrapper_cfg=wrapper))
        torch.save(runner.model.module.state_dict(), own / Path(runner.work_dir).name / 'weights.pt')
    flexible(own, 'copies', base, dict(type='DDPStrategy', model_wrapper=wrapper)).train()
    train_in_shards(own, base)
    torch.distributed.destroy_process_group()


def in_shards(folder: Path, name: str, base: dict, states: str | dict = 'local', **changes) -> FlexibleRunner:
    """A runner whose model is sharded over two processes on the CPU."""
    wrapper = dict(type='MMFullyShardedDataParallel', device_id='cpu', auto_wrap_policy=changes.pop('wrap', None))
    strategy = dict(type='FSDPStrategy', model_wrapper=wrapper, state_dict_cfg=states)
    return flexible(folder, name, base, strategy, **changes)


def flexible(folder: Path, name: str, base: dict, strategy: dict, hooks: Sequence[dict] = (), **changes):
    cfg = config(folder / name, 'wrapper', False, 1, base)
    cfg.custom_hooks += [dict(type='mmpeft.AdapterReportHook'), *hooks]
    cfg.merge_from_dict(
        dict(launcher='pytorch', strategy=strategy, env_cfg=dict(dist_cfg=dict(backend='gloo')), **changes)
    )
    return FlexibleRunner.from_cfg(cfg)


def with_method(**method) -> dict:
    return dict(model=dict(backbone=dict(method=dict(method, _delete_=True))))


def train_in_shards(own: Path, base: dict) -> None:
    in_shards(own, 'whole', SWIN, FULL, load_from=base['init_cfg']['checkpoint']).train()
    in_shards(own, 'blocks', base, wrap='wrap_blocks').train()
    file = str(own.parent / 'rank0/wrapper/adapters_last.safetensors')
    exact = dict(type='mmpeft.ExactResumeHook')
    late = base['init_cfg']['checkpoint']
    refused = dict(
        ema=lambda name: in_shards(own, name, base, hooks=[EMA]),
        adapters=lambda name: in_shards(own, name, base, FULL, load_from=file),
        resumed=lambda name: in_shards(own, name, base, FULL, load_from=file, resume=True, hooks=[exact]),
        late=lambda name: in_shards(own, name, SWIN, FULL, wrap='wrap_blocks', load_from=late),
        cvpt=lambda name: in_shards(own, name, base, wrap='wrap_parts', **with_method(type='CVPT', num_prompts=2)),
        ssf=lambda name: in_shards(own, name, base, wrap='wrap_parts', **with_method(type='SSF')),
    )
    for name, build in refused.items():
        with pytest.raises((RuntimeError, ValueError)) as error:
            build(name).train()
        (own / f'{name}.txt').write_text(str(error.value))


@pytest.fixture(scope='module')
def ranks(tmp_path_factory):
    """A folder with the runs of two processes, one folder each, and the base that they trained on."""
    folder = tmp_path_factory.mktemp('ranks')
    base = pretrained(folder)
    mp.spawn(rank_main, args=(folder, base), nprocs=2)
    return SimpleNamespace(folder=folder, base=base, zero=folder / 'rank0', one=folder / 'rank1')


def close(a: dict, b: dict) -> None:
    assert a.keys() == b.keys()
    for name in b:
        torch.testing.assert_close(a[name], b[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize('way', WAYS)
def test_two_ranks_stay_equal_and_match_one_process_with_the_same_global_batch(tmp_path, ranks, way):
    weights = [torch.load(folder / way / 'weights.pt') for folder in (ranks.zero, ranks.one)]
    assert same(*weights)
    one = trained(config(tmp_path / 'one', way, False, 2, ranks.base)).model.state_dict()
    start = trained(
        config(tmp_path / 'start', way, False, 2, ranks.base, train_cfg=dict(by_epoch=False, max_iters=1))
    ).model.state_dict()
    close(weights[0], one)
    name = 'backbone.stages.3.blocks.0.adapters.after_ffn.up.weight'
    assert (one[name] - start[name]).abs().max() > 1e-4


@pytest.mark.parametrize('way, ema', RUNS)
def test_two_ranks_write_one_adapter_file_which_is_that_of_one_process(tmp_path, ranks, way, ema):
    trained(cfg := config(tmp_path, way, ema, 2, ranks.base))
    name = Path(cfg.work_dir).name
    one, two = (read_adapters(folder / name / 'adapters_last.safetensors') for folder in (tmp_path, ranks.zero))
    assert two.info == one.info
    close(two.tensors, one.tensors)


@pytest.mark.parametrize('way, ema', RUNS)
def test_a_fresh_model_gives_the_outputs_of_the_checkpoint_from_the_adapter_file(tmp_path, ranks, way, ema):
    """The checkpoint holds the averaged weights where there are any."""
    name = Path(config(tmp_path, way, ema, 2, ranks.base).work_dir).name
    checkpoint = torch.load(ranks.zero / name / 'iter_4.pth', weights_only=False)
    expected, fresh = (MODELS.build(config(tmp_path, 'wrapper', ema, 2, ranks.base).model).eval() for _ in range(2))
    expected.load_state_dict(checkpoint['state_dict'])
    fresh.init_weights()
    mmpeft.load_adapters(fresh, ranks.zero / name / 'adapters_last.safetensors')
    x = torch.randn(2, 3, 24, 24)
    assert torch.equal(fresh(x), expected(x))
    trained_weights = torch.load(ranks.zero / name / 'weights.pt')
    assert same(checkpoint['state_dict'], trained_weights) != ema


def test_only_the_first_process_writes_adapter_files_and_leaves_nothing_else_behind(ranks):
    suffixes = '.safetensors', '.pth'
    written = {path for path in ranks.zero.glob('*/*') if path.suffix in suffixes or path.name.startswith('.')}
    assert {str(path.relative_to(ranks.zero)) for path in written} == {
        f'{way}{"_ema" * ema}/{name}' for way, ema in RUNS for name in ('adapters_last.safetensors', 'iter_4.pth')
    }
    assert not [path for path in ranks.one.glob('*/*') if path.suffix in suffixes or path.name.startswith('.')]


@pytest.mark.parametrize('name', ['copies', 'whole', 'blocks'])
def test_the_strategies_of_a_flexible_runner_write_the_adapter_file_of_a_runner(ranks, name):
    """Copies by DDP; shards of all as one unit, with whole checkpoints; shards block by block, in checkpoints too."""
    expected = read_adapters(ranks.zero / 'wrapper/adapters_last.safetensors')
    file = read_adapters(ranks.zero / name / 'wrapper/adapters_last.safetensors')
    assert file.info == expected.info
    close(file.tensors, expected.tensors)


def test_averaging_a_sharded_model_is_refused_before_training(ranks):
    for folder in (ranks.zero, ranks.one):
        assert (folder / 'ema.txt').read_text() == (
            'AdapterReportHook takes no EMAHook under FSDPStrategy, whose checkpoints mmengine cannot average. '
            'Remove EMAHook, or use Runner, which averages under DDP.'
        )


def test_a_sharded_model_does_not_start_from_an_adapter_file(ranks):
    message = (ranks.one / 'adapters.txt').read_text()
    assert message.startswith('FSDPStrategy cannot start from the adapter file') and message.endswith(
        'use DDPStrategy.'
    )


def test_a_sharded_run_is_not_resumed_by_the_hook_for_exact_resuming(ranks):
    message = (ranks.one / 'resumed.txt').read_text()
    assert message.startswith('Training under FSDPStrategy is not resumed') and message.endswith('use DDPStrategy.')


@pytest.mark.parametrize('method', ['cvpt', 'ssf'])
def test_blocks_in_parts_are_refused_where_a_method_reads_what_others_hold(ranks, method):
    for folder in (ranks.zero, ranks.one):
        message = (folder / f'{method}.txt').read_text()
        assert message.startswith(f'{method.upper()} reads ') and 'size_based_auto_wrap_policy' in message
        assert message.endswith(
            'Wrap whole blocks, with transformer_auto_wrap_policy and their class as '
            'transformer_layer_cls, or the model as one unit.'
        )


def test_a_base_that_comes_after_its_blocks_were_sharded_is_refused(ranks):
    assert 'were never given pretrained weights' in (ranks.one / 'late.txt').read_text()
