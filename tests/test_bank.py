import copy
import threading

import pytest
import torch
from test_checkpoint import METHODS, adapted, detector, moved, rewritten
from tiny import BACKBONES, MONA, image, same, swin, weights

import mmpeft
from mmpeft.checkpoint import read_adapters
from mmpeft.fingerprint import base_names


def stock(host='mmdet Swin', **options):
    """The base of ``adapted``."""
    torch.manual_seed(0)
    return BACKBONES[host](**options)


def saved(model, path):
    mmpeft.save_adapters(model, path)
    return path


@torch.no_grad()
def outputs(model, x):
    found = model(x)
    return found if isinstance(found, tuple | list) else (found,)


def equal(a, b):
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.fixture
def bank(tmp_path):
    """Two tasks, and what their own models make of an image."""
    bank, own = mmpeft.AdapterBank(stock()), {}
    for seed, name in enumerate('ab', 1):
        own[name] = moved(adapted(seed=seed), seed)
        bank.add(name, saved(own[name], tmp_path / f'{name}.safetensors'))
    return bank, own


@pytest.mark.parametrize(
    'host, method',
    [
        *((host, 'Mona') for host in BACKBONES),
        *(('mmdet Swin', method) for method in METHODS),
    ],
)
def test_a_task_computes_what_its_own_model_computes_to_the_bit(host, method, tmp_path):
    own = moved(adapted(METHODS[method], host))
    bank = mmpeft.AdapterBank(stock(host))
    bank.add('other', saved(moved(adapted(dict(type='SSF'), host), 2), tmp_path / 'other.safetensors'))
    bank.add('task', saved(own, tmp_path / 'task.safetensors'))
    x = image(40, 48)
    bank.activate('other')
    other = outputs(bank, x)
    bank.activate('task')
    assert equal(outputs(bank, x), outputs(own, x)) and not equal(outputs(bank, x), other)
    assert same(bank.task('task').state_dict(), own.state_dict())


@pytest.mark.parametrize('method', METHODS)
def test_the_frozen_base_exists_once_and_all_that_trains_is_the_tasks_own(method, tmp_path):
    base = stock()
    before = weights(base)
    bank = mmpeft.AdapterBank(base)
    task = bank.add('task', saved(moved(adapted(METHODS[method])), tmp_path / 'task.safetensors'))
    shared = base_names(task)
    for name, parameter in base.named_parameters():
        assert (task.get_parameter(name) is parameter) == (name in shared)
    assert {n for n, p in task.named_parameters() if p.requires_grad} == mmpeft.trained_names(task)
    moved(task, 3)
    assert same(weights(base), before)


def test_whole_models_of_other_classes_and_outputs_share_the_base_of_a_backbone(tmp_path):
    bank = mmpeft.AdapterBank(stock())
    for classes in (3, 5):
        own = moved(detector(classes=classes), classes)
        model = detector(seed=9, classes=classes)  # another base, which the bank replaces
        bank.add(str(classes), saved(own, tmp_path / f'{classes}.safetensors'), model)
        x = image()
        assert equal(outputs(bank.task(str(classes)), x), outputs(own.eval(), x))


def test_a_bank_of_backbones_takes_the_part_of_the_backbone_from_a_file_of_a_whole_model(tmp_path):
    own = moved(detector(method=METHODS['BitFit'])).eval()
    bank = mmpeft.AdapterBank(stock())
    bank.add('task', saved(own, tmp_path / 'task.safetensors'))
    x = image()
    assert equal(outputs(bank.task('task'), x), outputs(own.backbone, x))


def test_what_differs_between_tasks_on_one_pretrained_file_stays_with_the_task(tmp_path):
    def one():
        torch.manual_seed(0)
        backbone = swin(out_indices=(1, 3), drop_path_rate=0.3)
        mmpeft.inject(backbone, MONA)
        mmpeft.freeze(backbone)
        return backbone.eval()

    own = moved(one())
    bank = mmpeft.AdapterBank(stock())
    path = saved(own, tmp_path / 'task.safetensors')
    with pytest.raises(mmpeft.WrongModelError, match='lacks norm0'):
        bank.add('task', path)
    bank.add('task', path, one())
    x = image()
    assert len(outputs(bank.task('task'), x)) == 2 and equal(outputs(bank.task('task'), x), outputs(own, x))


def test_a_resized_table_of_positions_stays_with_the_task(tmp_path):
    def one():
        backbone = stock('mmseg ViT', img_size=64)
        mmpeft.inject(backbone, MONA)
        mmpeft.freeze(backbone)
        return backbone.eval()

    base = stock('mmseg ViT')
    bank, own = mmpeft.AdapterBank(base), one()
    own.load_state_dict({n: p for n, p in base.state_dict().items() if n != 'pos_embed'}, strict=False)
    task = bank.add('task', saved(own, tmp_path / 'task.safetensors'), one())
    x = image(64, 64)
    assert task.pos_embed.shape != base.pos_embed.shape and equal(outputs(task, x), outputs(own, x))


def test_a_file_of_another_base_or_backbone_is_refused_and_the_bank_is_as_it_was(bank, tmp_path):
    bank, _ = bank
    other = swin()
    mmpeft.inject(other, MONA)
    with pytest.raises(mmpeft.WrongBaseError, match='was trained on another base'):
        bank.add('c', saved(other, tmp_path / 'c.safetensors'))
    mmseg = adapted(host='mmseg Swin')
    with pytest.raises(mmpeft.WrongModelError, match='mmseg.*this backbone is a mmdet'):
        bank.add('c', saved(mmseg, tmp_path / 'd.safetensors'))
    small = swin(embed_dims=4)
    mmpeft.inject(small, MONA)
    with pytest.raises(mmpeft.WrongModelError, match=r'another base than the bank: .* differ in shape or dtype'):
        bank.add('c', saved(small, tmp_path / 'e.safetensors'), small)
    assert bank.list() == ['a', 'b']


def test_the_base_is_compared_anew_for_each_task(bank, tmp_path):
    bank, _ = bank
    parameter = bank.task('a').stages[0].blocks[0].norm1.weight
    parameter.data = parameter + 1
    with pytest.raises(mmpeft.WrongBaseError, match='1 of .* tensors differ: stages.0.blocks.0.norm1.weight'):
        bank.add('c', tmp_path / 'a.safetensors')


def test_a_model_whose_file_is_refused_is_as_it_was(bank, tmp_path):
    bank, _ = bank
    other = swin()
    mmpeft.inject(other, MONA)
    path = saved(other, tmp_path / 'c.safetensors')
    model = adapted(seed=5)
    model.expect_base()
    before, missing = weights(model), model.missing
    with pytest.raises(mmpeft.WrongBaseError):
        bank.add('c', path, model)
    assert same(weights(model), before) and model.missing == missing and not model.shared


def forged(task, **options):
    """A file that names other options than those of its tensors."""
    return rewritten(task, info=dict(methods=[dict(read_adapters(task).info.methods[0], **options)]))


def test_sizes_that_a_file_names_are_compared_with_its_tensors_before_anything_is_allocated(tmp_path, monkeypatch):
    task, bank = saved(adapted(), tmp_path / 'task.safetensors'), mmpeft.AdapterBank(stock())
    monkeypatch.setattr(torch.nn.Module, 'to_empty', lambda *_, **__: pytest.fail('allocated'))
    with pytest.raises(mmpeft.WrongModelError, match=r'down.weight of shape \(4, 8\), and .* one of \(1000000000'):
        bank.add('task', forged(task, bottleneck=10**9))
    for options in (dict(bottleneck=10**30), dict(bottleneck='4'), dict(type='Nona'), dict(blocks='(')):
        with pytest.raises(mmpeft.WrongModelError, match='names methods that'):
            bank.add('task', forged(task, **options))
    assert bank.list() == []


@pytest.mark.parametrize(
    'blocks', [r'(([a-z0-9_]+)+\.?)+!', '.*' * 4 + '!', '(a?){30}a{30}', 'a?' * 30 + 'a' * 30, '(.|.)' * 30]
)
def test_a_pattern_of_a_file_that_could_search_for_ever_is_refused(blocks, tmp_path):
    task, bank = saved(adapted(), tmp_path / 'task.safetensors'), mmpeft.AdapterBank(stock())
    with pytest.raises(mmpeft.WrongModelError, match='chooses blocks by .* built from its config, as third argument'):
        bank.add('task', forged(task, blocks=blocks))


@pytest.mark.parametrize('blocks', [r'stages\.(0|1)\.blocks\.\d+$', r'^stages\.[01]\..*'])
def test_a_file_chooses_the_blocks_of_its_adapters(blocks, tmp_path):
    own = adapted(dict(MONA, blocks=blocks))
    bank = mmpeft.AdapterBank(stock())
    assert same(bank.add('task', saved(own, tmp_path / 'task.safetensors')).state_dict(), own.state_dict())


def test_tasks_are_known_by_name(bank, tmp_path):
    bank, _ = bank
    with pytest.raises(RuntimeError, match='No task of the bank is active; call activate with one of a, b'):
        bank(image())
    with pytest.raises(ValueError, match="has no task 'c'; it has a, b"):
        bank.activate('c')
    with pytest.raises(ValueError, match="has a task 'a' already"):
        bank.add('a', tmp_path / 'a.safetensors')
    bank.activate('a')
    bank.remove('a')
    assert bank.list() == ['b'] and bank.active is None


def test_a_bank_takes_a_stock_backbone():
    with pytest.raises(ValueError, match='carries adapters: give it before inject'):
        mmpeft.AdapterBank(adapted())
    with pytest.raises(ValueError, match='not a Linear'):
        mmpeft.AdapterBank(torch.nn.Linear(2, 2))


def test_moving_the_bank_moves_the_base_once(bank):
    bank, own = bank
    bank.to(torch.float64)
    a, b = bank.task('a'), bank.task('b')
    name = min(base_names(a))
    assert a.get_parameter(name) is b.get_parameter(name) and a.get_parameter(name).dtype == torch.float64
    x = image().double()
    assert equal(outputs(a, x), outputs(own['a'].double(), x))


def test_another_base_is_not_loaded_into_a_task(bank):
    bank, own = bank
    before = weights(bank.task('b'))
    with pytest.raises(ValueError, match='shared by all tasks of a bank and cannot be loaded anew'):
        bank.task('a').load_state_dict(swin().state_dict(), strict=False)
    assert same(weights(bank.task('b')), before)
    free = copy.deepcopy(bank.task('a'))
    free.load_state_dict(swin().state_dict(), strict=False)
    assert same(weights(bank.task('b')), before) and same(weights(bank.task('a')), weights(own['a']))


def test_a_task_is_merged_as_a_copy(tmp_path):
    bank = mmpeft.AdapterBank(stock())
    for seed, name in enumerate('ab', 1):
        bank.add(name, saved(moved(adapted(dict(type='LoRA')), seed), tmp_path / f'{name}.safetensors'))
    x = image()
    before = outputs(bank.task('a'), x), outputs(bank.task('b'), x)
    with pytest.raises(ValueError, match='shared by all tasks of a bank. Merge a copy'):
        mmpeft.merge(bank.task('a'))
    merged = copy.deepcopy(bank.task('a'))
    assert mmpeft.merge(merged).is_stock
    assert torch.allclose(outputs(merged, x)[-1], before[0][-1], atol=1e-5)
    assert equal(outputs(bank.task('a'), x), before[0]) and equal(outputs(bank.task('b'), x), before[1])


@pytest.mark.parametrize('method', ['Mona', 'BitFit', 'Full'])
def test_training_a_task_changes_no_other(bank, method, tmp_path):
    bank, own = bank
    task = bank.add('c', saved(moved(adapted(METHODS[method])), tmp_path / 'c.safetensors'))
    task.train()
    optimizer = torch.optim.AdamW(task.parameters(), lr=0.1, weight_decay=0.1)
    task(image())[-1].square().mean().backward()
    optimizer.step()
    x = image()
    assert equal(outputs(bank.task('a'), x), outputs(own['a'], x))


def test_a_base_that_was_written_to_is_found_out(bank):
    bank, _ = bank
    with torch.no_grad():
        bank.task('a').stages[0].blocks[0].norm1.weight += 1
    with pytest.raises(RuntimeError, match='base of this bank was written to'):
        bank.activate('b')


def run_in_threads(*jobs):
    """Run each in a thread of its own; give what they returned, in the order in which they ended."""
    ended = []
    threads = [threading.Thread(target=lambda job=job: ended.append(job())) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    return ended


def test_different_tasks_run_at_the_same_time(bank):
    bank, own = bank
    x = {name: image() for name in 'ab'}
    inside = threading.Barrier(2, timeout=30)
    for name in 'ab':
        bank.task(name).stages[1].register_forward_pre_hook(lambda *_: (inside.wait(), None)[1])

    def job(name):
        with bank.use(name) as model:
            return name, outputs(model, x[name])

    found = dict(run_in_threads(lambda: job('a'), lambda: job('b')))
    assert all(equal(found[name], outputs(own[name], x[name])) for name in 'ab')


def test_activating_does_not_touch_a_call_that_runs(bank):
    bank, own = bank
    bank.activate('a')
    handle = bank.task('a').stages[1].register_forward_pre_hook(lambda *_: bank.activate('b') and None)
    x = image()
    assert equal(outputs(bank, x), outputs(own['a'], x)) and bank.active == 'b'
    handle.remove()
    assert equal(outputs(bank, x), outputs(own['b'], x))


def test_one_thread_at_a_time_uses_a_task(bank):
    bank, _ = bank
    order, started = [], threading.Event()

    def second():
        started.set()
        with bank.use('a'):
            order.append('second')

    thread = threading.Thread(target=second)
    with bank.use('a'):
        thread.start()
        assert started.wait(30)
        thread.join(timeout=0.2)
        order.append('first')
    thread.join(timeout=30)
    assert order == ['first', 'second']
