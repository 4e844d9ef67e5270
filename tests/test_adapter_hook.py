import io
from pathlib import Path

import pytest
import torch
from mmengine.registry import MODELS
from mmengine.runner import Runner, load_checkpoint
from safetensors.torch import save_file
from test_checkpoint import rewritten
from tiny import (
    MONA,
    SWIN,
    VIT,
    ToyModel,
    mmpretrain_vit,
    mmseg_vit,
    pretrained,
    runner_config,
    same,
    swin,
    trained,
    weights,
    with_constructor,
    wrapped,
)

import mmpeft
from mmpeft.checkpoint import read_adapters, tensors_to_save
from mmpeft.freeze import is_adapter
from mmpeft.mm.weights.checkpoints import read_checkpoint
from mmpeft.mm.weights.loading import load_from_safetensors
from mmpeft.mm.weights.sources import _HttpsAlone, fetch_base

HOOK = dict(type='mmpeft.AdapterCheckpointHook')


def config(folder, **changes):
    """ToyModel on a pretrained Swin, a checkpoint every two iterations."""
    backbone = wrapped(dict(pretrained(folder), type='mmdet.SwinTransformer'))
    hooks = dict(checkpoint=dict(type='CheckpointHook', interval=2, by_epoch=False, max_keep_ckpts=1))
    changes = dict(default_hooks=hooks, custom_hooks=[HOOK]) | changes
    return runner_config(changes.pop('work_dir', folder / 'work'), backbone, **changes)


def saved(path):
    return read_checkpoint(path)['state_dict']


def test_an_adapter_file_lies_beside_the_last_checkpoint_and_holds_its_weights(tmp_path):
    runner = trained(config(tmp_path))
    file = read_adapters(tmp_path / 'work/adapters_last.safetensors')
    assert same(file.tensors, tensors_to_save(runner.model, saved(tmp_path / 'work/iter_4.pth')))
    assert file.info.base == 'base.pth'
    assert sorted(path.name for path in (tmp_path / 'work').glob('*.safetensors')) == ['adapters_last.safetensors']


def test_it_holds_the_averaged_weights_where_an_ema_hook_is_on(tmp_path):
    runner = trained(config(tmp_path, custom_hooks=[HOOK, dict(type='EMAHook', momentum=0.3)]))
    file = read_adapters(tmp_path / 'work/adapters_last.safetensors')
    ema = next(hook for hook in runner.hooks if type(hook).__name__ == 'EMAHook').ema_model.module
    assert same(file.tensors, tensors_to_save(ema, ema.state_dict()))
    assert not same(file.tensors, tensors_to_save(runner.model, runner.model.state_dict()))


def test_best_weights_have_a_file_of_their_own(tmp_path, monkeypatch):
    """The score falls from validation to validation, so the first checkpoint stays the best."""
    scores = iter([0.9, 0.1])
    evaluator = dict(type='Evaluator', metrics=[])
    monkeypatch.setattr('mmengine.evaluator.Evaluator.evaluate', lambda self, size: {'acc': next(scores)})
    loader = dict(batch_size=2, num_workers=0, sampler=dict(type='DefaultSampler'), dataset=dict(type='NoiseDataset'))
    hook = dict(type='CheckpointHook', interval=2, by_epoch=False, save_best='acc', rule='greater')
    cfg = config(
        tmp_path,
        default_hooks=dict(checkpoint=hook),
        train_cfg=dict(by_epoch=False, max_iters=4, val_interval=2),
        val_dataloader=loader,
        val_cfg=dict(),
        val_evaluator=evaluator,
    )
    monkeypatch.setattr(ToyModel, 'val_step', lambda self, data: [dict()])
    runner = trained(cfg)
    for name, checkpoint in (('last', 'iter_4'), ('best_acc', 'best_acc_iter_2')):
        file = read_adapters(tmp_path / f'work/adapters_{name}.safetensors')
        assert same(file.tensors, tensors_to_save(runner.model, saved(tmp_path / f'work/{checkpoint}.pth')))
    assert not same(
        read_adapters(tmp_path / 'work/adapters_last.safetensors').tensors,
        read_adapters(tmp_path / 'work/adapters_best_acc.safetensors').tensors,
    )


def test_the_classes_of_the_training_data_are_in_the_file(tmp_path):
    cfg = config(tmp_path)
    cfg.train_dataloader.dataset.metainfo = dict(classes=('cat', 'dog'), palette=[(1, 2, 3), (4, 5, 6)])
    trained(cfg)
    info = read_adapters(tmp_path / 'work/adapters_last.safetensors').info
    assert info.classes == ['cat', 'dog'] and info.palette == [[1, 2, 3], [4, 5, 6]]
    meta = load_from_safetensors(str(tmp_path / 'work/adapters_last.safetensors'))['meta']
    assert meta == dict(dataset_meta=dict(classes=('cat', 'dog'), palette=[(1, 2, 3), (4, 5, 6)]))


def test_the_one_line_hook_writes_the_same_file(tmp_path):
    trained(with_constructor(config(tmp_path)))
    cfg = config(tmp_path, custom_hooks=[dict(type='mmpeft.AdapterHook', method=MONA)], work_dir=str(tmp_path / 'hook'))
    cfg.model.backbone = cfg.model.backbone.backbone
    trained(cfg)
    files = [read_adapters(tmp_path / folder / 'adapters_last.safetensors') for folder in ('work', 'hook')]
    assert files[0].info == files[1].info
    assert same(files[0].tensors, files[1].tensors)


def test_a_whole_model_that_was_loaded_from_is_named_as_the_base(tmp_path):
    whole = ToyModel(dict(pretrained(tmp_path), type='mmdet.SwinTransformer'))
    torch.save(dict(state_dict=whole.state_dict()), tmp_path / 'detector.pth')
    trained(config(tmp_path, load_from=str(tmp_path / 'detector.pth')))
    assert read_adapters(tmp_path / 'work/adapters_last.safetensors').info.base == 'detector.pth'
    cfg = config(tmp_path, load_from=str(tmp_path / 'work/iter_4.pth'), resume=True)
    cfg.train_cfg.max_iters = 6
    trained(cfg)
    assert read_adapters(tmp_path / 'work/adapters_last.safetensors').info.base == 'detector.pth'


def test_a_random_base_gets_no_adapter_file_and_a_warning(tmp_path):
    cfg = config(tmp_path)
    cfg.model.backbone.allow_random_base = True
    cfg.model.backbone.backbone.pop('init_cfg')
    trained(cfg)
    assert (tmp_path / 'work/iter_4.pth').is_file() and not list((tmp_path / 'work').glob('*.safetensors'))
    assert 'No adapter file is written: the base is random' in next((tmp_path / 'work').rglob('*.log')).read_text()


# Loading without anybody having initialised the model


def built(folder, method=MONA, **backbone):
    cfg = config(folder)
    cfg.model.backbone.method = method
    cfg.model.backbone.backbone.update(backbone)
    return MODELS.build(cfg.model).eval()


def load(model, path):
    """As mm's inference APIs do it."""
    return load_checkpoint(model, str(path), map_location='cpu')


@pytest.fixture
def task(tmp_path):
    """A trained model's output, and its adapter file."""
    runner = trained(config(tmp_path))
    x = torch.randn(2, 3, 24, 24)
    return runner.model.eval()(x), x, tmp_path / 'work/adapters_last.safetensors'


def test_the_base_is_loaded_although_nobody_initialises_the_model(tmp_path, task):
    expected, x, path = task
    model = built(tmp_path)
    load(model, path)
    assert torch.equal(model(x), expected)


def test_loading_reports_no_tensor_of_the_base_as_missing(tmp_path, task, caplog, capsys):
    load(built(tmp_path), task[2])
    assert 'do not match' not in capsys.readouterr().out + caplog.text


@pytest.mark.parametrize('place', ['task', 'cwd', 'hub/checkpoints'])
def test_a_base_that_the_config_does_not_name_is_looked_for_where_the_file_says(place, tmp_path, task, monkeypatch):
    """Beside the adapter file, in the working directory, and among the downloads."""
    expected, x, path = task
    for folder in ('task', 'cwd', 'hub/checkpoints'):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / 'base.pth').rename(tmp_path / place / 'base.pth')
    path = path.rename(tmp_path / 'task' / path.name)
    monkeypatch.chdir(tmp_path / 'cwd')
    monkeypatch.setattr('torch.hub.get_dir', lambda: str(tmp_path / 'hub'))
    model = without_base()
    load(model, path)
    assert torch.equal(model(x), expected)


def without_base():
    """The model from a config that names no base."""
    return MODELS.build(runner_config('', wrapped(dict(SWIN, type='mmdet.SwinTransformer'))).model).eval()


def test_a_base_that_is_nowhere_is_an_error_that_says_where_it_was_looked_for(tmp_path, task):
    (tmp_path / 'base.pth').unlink()
    with pytest.raises(mmpeft.BaseNotFoundError, match='The file says that it is base.pth'):
        load(without_base(), task[2])


def test_a_config_with_another_base_is_refused(tmp_path, task):
    state = saved(tmp_path / 'base.pth')
    state['backbone.patch_embed.projection.bias'] += 0.01
    torch.save(dict(state_dict=state), tmp_path / 'other.pth')
    model = built(tmp_path, init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'other.pth')))
    (tmp_path / 'base.pth').unlink()
    refused(model, task[2], mmpeft.WrongBaseError, r'was trained on another base: .* that of .*other\.pth')


def refused(model, path, error, words):
    """Loading is refused with ``words``, and leaves the model as it was: it still asks for its base."""
    before, missing = weights(model), model.backbone.missing
    with pytest.raises(error, match=words):
        load(model, path)
    assert same(weights(model), before) and model.backbone.missing == missing != frozenset()


def test_another_base_where_the_file_says_is_not_taken_over(tmp_path, task):
    state = saved(tmp_path / 'base.pth')
    state['backbone.patch_embed.projection.bias'] += 0.01
    torch.save(dict(state_dict=state), task[2].parent / 'base.pth')
    (tmp_path / 'base.pth').unlink()
    refused(without_base(), task[2], mmpeft.WrongBaseError, r'that of .*base\.pth')


@pytest.mark.parametrize(
    'content',
    [
        dict(state_dict=[torch.zeros(1)], x=dict(a=torch.zeros(1))),
        {1: torch.zeros(1)},
        dict(model='swin', x=torch.zeros(1)),
        dict(state_dict={'backbone.norm.weight': 'ones', 'a': torch.zeros(1)}),
    ],
)
@pytest.mark.parametrize('timm', [False, True])
def test_a_base_file_of_whatever_content_is_passed_over(tmp_path, task, content, timm):
    (tmp_path / 'base.pth').unlink()
    torch.save(content, task[2].parent / 'base.pth')
    if timm:
        task = (*task[:2], rewritten(task[2], info=dict(base='timm:base.pth')))
    refused(without_base(), task[2], mmpeft.BaseNotFoundError, 'have no pretrained values')


# A base that only the file names


class Web:
    """Stands in for urllib: it serves what ``files`` holds, and counts."""

    def __init__(self, files):
        self.files, self.asked = files, []

    def __call__(self, *handlers):
        return self

    def open(self, url):
        self.asked.append(url)
        return io.BytesIO(self.files[url])


URL = 'https://example.org/evil/base.pth'


@pytest.fixture
def web(tmp_path, task, monkeypatch):
    """A web with the base, which lies nowhere else, and the file of a task that says so."""
    web = Web({URL: (tmp_path / 'base.pth').read_bytes()})
    (tmp_path / 'base.pth').unlink()
    monkeypatch.setattr('torch.hub.get_dir', lambda: str(tmp_path / 'hub'))
    monkeypatch.setattr('mmpeft.mm.weights.sources.build_opener', web)
    return web, rewritten(task[2], info=dict(base=URL))


def kept(folder):
    return [path for path in (folder / 'hub').rglob('*') if path.is_file()]


def test_a_base_that_only_the_file_names_is_not_fetched_unless_told(tmp_path, web, task, monkeypatch):
    web, path = web
    how = r'only if you say so: load_adapters\(..., fetch_base=True\), or MMPEFT_FETCH_BASE=1'
    refused(without_base(), path, mmpeft.BaseNotFoundError, how)
    assert not web.asked and not kept(tmp_path)
    monkeypatch.setenv('MMPEFT_FETCH_BASE', '1')
    model = without_base()
    load(model, path)
    assert torch.equal(model(task[1]), task[0]) and web.asked == [URL]
    monkeypatch.delenv('MMPEFT_FETCH_BASE')
    model = without_base()
    mmpeft.load_adapters(model, path, fetch_base=True)
    assert torch.equal(model(task[1]), task[0]) and web.asked == [URL], 'fetched again'
    assert not (tmp_path / 'hub/checkpoints').exists(), 'a config would find it there'


@pytest.mark.parametrize('content', ['another base', 'code', b'text'])
def test_what_was_fetched_and_is_not_the_base_does_not_stay(content, tmp_path, web, task):
    web, path = web
    evil = tmp_path / 'evil.pth'
    state = {f'backbone.{name}': tensor for name, tensor in swin().state_dict().items()}
    torch.save(dict(state_dict=state, meta=Path('x') if content == 'code' else None), evil)
    web.files[URL] = content if isinstance(content, bytes) else evil.read_bytes()
    model = without_base()
    with pytest.raises(mmpeft.AdapterFileError):
        mmpeft.load_adapters(model, path, fetch_base=True)
    assert web.asked == [URL] and not kept(tmp_path) and model.backbone.missing


def test_a_base_from_an_address_that_another_process_cannot_use_is_not_taken_over(tmp_path, web, monkeypatch):
    _, path = web
    answers = [None, None, 'base.pth is damaged']  # of the other process: fetched by the first, there, and looked at
    monkeypatch.setattr('mmpeft.mm.together.all_gather_object', lambda text: [text, answers.pop(0)])
    model = without_base()
    with pytest.raises(mmpeft.BaseNotFoundError):
        mmpeft.load_adapters(model, path, fetch_base=True)
    assert not answers and model.backbone.missing


def test_a_base_from_the_hub_stays_apart_and_goes_when_it_is_refused(tmp_path, web, monkeypatch):
    def from_hub(repo, file, revision, cache_dir):
        path = cache_dir / repo / file
        path.parent.mkdir(parents=True)
        save_file({'backbone.patch_embed.norm.bias': torch.ones(8)}, path)
        fetched.append(path)
        return path

    fetched = []
    monkeypatch.setattr('huggingface_hub.hf_hub_download', from_hub)
    path = rewritten(web[1], info=dict(base='hf://owner/repo/base.safetensors'))
    with pytest.raises(mmpeft.BaseNotFoundError):
        mmpeft.load_adapters(without_base(), path, fetch_base=True)
    assert len(fetched) == 1 and fetched[0].is_relative_to(tmp_path / 'hub/mmpeft') and not kept(tmp_path)


def test_a_base_that_only_the_file_names_comes_by_https_alone(tmp_path, web):
    web, path = web
    plain = rewritten(path, info=dict(base=URL.replace('https', 'http')))
    with pytest.raises(mmpeft.BaseNotFoundError):
        mmpeft.load_adapters(without_base(), plain, fetch_base=True)
    assert not web.asked
    with pytest.raises(OSError, match='it leads to http://example.org'):
        _HttpsAlone().redirect_request(None, None, 302, 'Found', {}, 'http://example.org')


def test_addresses_with_one_last_name_are_two_files(web):
    web, _ = web
    web.files |= {f'https://{host}.org/base.pth': host.encode() for host in 'ab'}
    assert [fetch_base(f'https://{host}.org/base.pth').read_bytes() for host in 'ab'] == [b'a', b'b']


def test_a_base_is_known_by_a_model_in_half_precision(tmp_path, task):
    model = built(tmp_path).to(torch.bfloat16)
    load(model, task[2])
    assert not model.backbone.missing


def test_other_options_are_refused_by_a_stock_loader(tmp_path, task):
    with pytest.raises(mmpeft.WrongModelError, match='this backbone carries'):
        load(built(tmp_path, method=dict(MONA, bottleneck=2)), task[2])


def test_a_task_starts_from_the_file_of_another_but_its_heads_start_anew(tmp_path, task):
    cfg = config(tmp_path, load_from=str(task[2]), custom_hooks=[dict(type='mmpeft.AdapterReportHook')])
    cfg.train_cfg.max_iters = 1
    cfg.optim_wrapper.optimizer.lr = 1e-12
    runner = Runner.from_cfg(cfg)
    runner.model.head = torch.nn.Linear(64, 4)
    anew = runner.model.head.weight.detach().clone()
    runner.train()
    adapters = {name: tensor for name, tensor in read_adapters(task[2]).tensors.items() if is_adapter(name)}
    state = runner.model.state_dict()
    assert all(torch.allclose(state[name], tensor, atol=1e-6) for name, tensor in adapters.items())
    assert adapters and torch.allclose(state['head.weight'], anew, atol=1e-6)
    told = ''.join(path.read_text() for path in (tmp_path / 'work').rglob('*.log'))
    assert 'heads that differ start anew: it has head.weight of shape (3, 64), and the model one of (4, 64)' in told


def test_a_task_does_not_start_from_the_file_of_other_adapters(tmp_path, task):
    cfg = config(tmp_path, load_from=str(task[2]), custom_hooks=[dict(type='mmpeft.AdapterReportHook')])
    cfg.model.backbone.method = dict(MONA, bottleneck=2)
    with pytest.raises(mmpeft.WrongModelError, match='this backbone carries'):
        Runner.from_cfg(cfg).train()


def test_training_goes_on_from_an_adapter_file(tmp_path, task):
    cfg = config(tmp_path, load_from=str(task[2]), work_dir=str(tmp_path / 'second'))
    cfg.optim_wrapper.optimizer.lr = 0.0
    trained(cfg)
    first, second = (read_adapters(path) for path in (task[2], tmp_path / 'second/adapters_last.safetensors'))
    assert same(first.tensors, second.tensors) and first.info.digests == second.info.digests


@pytest.mark.parametrize('vit', [mmseg_vit, mmpretrain_vit])
def test_a_table_of_positions_that_was_resized_comes_with_the_file(vit, tmp_path):
    torch.manual_seed(0)
    small = {f'backbone.{name}': tensor for name, tensor in vit().state_dict().items()}
    torch.save(dict(state_dict=small), tmp_path / 'base.pth')
    scope = 'mmseg' if vit is mmseg_vit else 'mmpretrain'
    options = dict(VIT, img_size=32, patch_size=8, mlp_ratio=2, out_indices=(0, 2))
    if scope == 'mmpretrain':
        options = dict(arch=dict(VIT, feedforward_channels=32), patch_size=8, out_indices=(0, 2), out_type='featmap')
    init = dict(type='Pretrained', checkpoint=str(tmp_path / 'base.pth'), prefix='backbone.')
    if scope == 'mmseg':
        init.pop('prefix')
        torch.save({name.removeprefix('backbone.'): tensor for name, tensor in small.items()}, tmp_path / 'base.pth')
    stock = dict(options, type=f'{scope}.VisionTransformer', img_size=48, init_cfg=init)
    model = MODELS.build(wrapped(stock, dict(type='CVPT')))
    model.init_weights()
    with torch.no_grad():
        model.pos_embed += 0.1  # what a task may do to it
    x = torch.randn(2, 3, 48, 48)
    mmpeft.save_adapters(model, tmp_path / 'task.safetensors')
    fresh = MODELS.build(wrapped(stock, dict(type='CVPT')))
    load(fresh, tmp_path / 'task.safetensors')
    for a, b in zip(fresh.eval()(x), model.eval()(x), strict=True):
        assert torch.equal(a, b)
