import json
import warnings
import zipfile
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from safetensors.torch import load_file
from test_checkpoint import METHODS, detector, moved, rewritten
from tiny import MONA, image, same, weights

import mmpeft
from mmpeft.checkpoint import read_adapters
from mmpeft.soups.ingredients import open_ingredients

RUN = dict(start='a' * 64, heldout='b' * 64)
LORA = dict(type='LoRA', rank=2, targets=['q', 'v', 'fc1'])


@cache
def start_of(method, classes):
    model = detector(json.loads(method), classes=classes)
    return model, weights(model)


def trained(seed, method=MONA, classes=3):
    """A detector some way from the one start, as after training with a seed of its own."""
    model, start = start_of(json.dumps(method), classes)
    model.load_state_dict(start)
    return moved(model, seed)


@pytest.fixture
def task(tmp_path):
    """Write the adapter file of a detector that was trained from the one start, by a seed of its own."""

    def write(seed, method=MONA, name=None, classes=3, **run):
        path = tmp_path / f'{name or seed}.safetensors'
        mmpeft.save_adapters(trained(seed, method, classes), path, facts={**RUN, **run})
        return path

    return write


@pytest.fixture
def whole(tmp_path):
    """Write a checkpoint as mmengine does, with logs beside the weights."""

    def write(seed, name=None, classes=('cat',), **run):
        model = trained(seed, dict(type='Full'))
        meta = dict(epoch=np.float64(1), cfg='x = 1', dataset_meta=dict(classes=classes), mmpeft={**RUN, **run})
        path = tmp_path / f'{name or seed}.pth'
        hub = dict(loss=HistoryBuffer([1.0, 2.0], [1, 1]))
        torch.save(dict(meta=meta, message_hub=hub, state_dict=model.state_dict(), optimizer={}), path)
        return path

    return write


@pytest.fixture(params=['adapter files', 'checkpoints'])
def run(request, task, whole):
    return task if request.param == 'adapter files' else whole


def tensors_of(path):
    return load_file(path) if path.suffix == '.safetensors' else torch.load(path, weights_only=False)['state_dict']


def test_a_uniform_soup_is_the_mean(run):
    files = [run(seed) for seed in (1, 2, 3)]
    soup = mmpeft.uniform_soup(files)
    parts = [tensors_of(file) for file in files]
    assert soup.keys() == parts[0].keys()
    for name, tensor in soup.items():
        if tensor.is_floating_point():
            mean = sum(part[name].double() for part in parts) / 3
            assert torch.allclose(tensor.double(), mean, rtol=1e-7, atol=0) and tensor.dtype == parts[0][name].dtype
        else:
            assert torch.equal(tensor, parts[0][name])


def test_a_soup_of_equal_files_is_that_file(run):
    files = [run(1, name=name) for name in 'abcdefg']
    assert same(mmpeft.uniform_soup(files), tensors_of(files[0]))
    assert same(mmpeft.uniform_soup(files[:1]), tensors_of(files[0]))


def test_what_no_run_changed_stays_as_it_is(tmp_path):
    state = dict(mask=torch.tensor([0.0, float('-inf')]), scale=torch.rand(9, dtype=torch.float64))
    files = [tmp_path / f'{number}.pth' for number in range(7)]
    for number, file in enumerate(files):
        torch.save(dict(state_dict=dict(state, weight=torch.tensor(float(number))), meta=dict(mmpeft=RUN)), file)
    assert same(mmpeft.uniform_soup(files), dict(state, weight=torch.tensor(3.0)))


def test_the_order_of_the_files_does_not_matter(run):
    files = [run(seed) for seed in (1, 2, 3, 4)]
    one, two = mmpeft.uniform_soup(files), mmpeft.uniform_soup(files[::-1])
    assert all(torch.allclose(one[name].double(), two[name].double(), rtol=1e-7, atol=1e-12) for name in one)


def test_checkpoints_in_the_old_format_are_mixed(tmp_path):
    for number in range(2):
        value = dict(state_dict=dict(weight=torch.full((3,), float(number))), meta=dict(mmpeft=RUN))
        torch.save(value, tmp_path / f'{number}.pth', _use_new_zipfile_serialization=False)
    assert mmpeft.uniform_soup([tmp_path / '0.pth', tmp_path / '1.pth'])['weight'].tolist() == [0.5] * 3


def test_half_precision_is_averaged_in_fp64(tmp_path):
    files = []
    for number in range(14):
        files.append(tmp_path / f'{number}.pth')
        state = dict(weight=torch.full((3,), 1000.0 + number, dtype=torch.float16))
        torch.save(dict(state_dict=state, meta=dict(mmpeft=RUN)), files[-1])
    soup = mmpeft.uniform_soup(files)['weight']
    assert soup.dtype == torch.float16 and torch.equal(soup, torch.full((3,), 1006.5, dtype=torch.float16))


def test_integers_are_copied_and_must_agree(tmp_path):
    index = torch.arange(169).view(13, 13)
    for number, other in enumerate([index, index, index + 1]):
        state = {'attn.relative_position_index': other, 'norm.num_batches_tracked': torch.tensor(number)}
        torch.save(dict(state_dict=state, meta=dict(mmpeft=RUN)), tmp_path / f'{number}.pth')
    files = [tmp_path / f'{number}.pth' for number in range(3)]
    soup = mmpeft.uniform_soup(files[:2])
    assert torch.equal(soup['attn.relative_position_index'], index) and soup['norm.num_batches_tracked'] == 0
    with pytest.raises(mmpeft.SoupError, match='2.pth do not mix: attn.relative_position_index, of torch.int64'):
        mmpeft.uniform_soup(files)


def test_averaged_statistics_of_batch_norms_are_warned_of(tmp_path):
    for number in range(2):
        norm = torch.nn.BatchNorm2d(3)
        norm(torch.randn(2, 3, 4, 4))
        torch.save(dict(state_dict=norm.state_dict(), meta=dict(mmpeft=RUN)), tmp_path / f'{number}.pth')
    files = [tmp_path / '0.pth', tmp_path / '1.pth']
    with pytest.warns(UserWarning, match='2 running statistics of BatchNorm are averaged, such as running_mean'):
        mmpeft.uniform_soup(files)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        mmpeft.uniform_soup(files[:1])
        assert mmpeft.uniform_soup(files, finish=lambda state: dict(finished=state['weight'])).keys() == {'finished'}


# LoRA


def test_averaged_deltas_of_lora_are_the_mean_of_the_deltas(task, tmp_path):
    files = [task(seed, LORA) for seed in (1, 2, 3)]
    mmpeft.write_soup(tmp_path / 'soup.safetensors', mmpeft.uniform_soup(files, lora='delta'), files)

    def deltas(method, path):
        model = detector(method)
        mmpeft.load_adapters(model, path)
        return {name: module.delta() for name, module in model.named_modules() if hasattr(module, 'delta')}

    parts = [deltas(LORA, file) for file in files]
    soup = deltas(dict(LORA, rank=6), tmp_path / 'soup.safetensors')
    assert len(soup) == 10
    for name, delta in soup.items():
        assert torch.allclose(delta, sum(part[name] for part in parts) / 3, atol=1e-7)
        assert not torch.allclose(delta, parts[0][name], atol=1e-3)


def test_a_greedy_soup_of_deltas_is_the_mean_of_the_deltas(task):
    files = [task(seed, LORA) for seed in (1, 2, 3)]
    soup = mmpeft.greedy_soup(files, lambda state: 0.5, lora='delta')
    assert len(soup.ingredients) == 3 and same(soup.state_dict, mmpeft.uniform_soup(files, lora='delta'))


def test_files_whose_targets_of_lora_stand_in_another_order_mix(task):
    one = task(1, LORA)
    other = rewritten(
        task(2, LORA), info=dict(methods=[dict(read_adapters(one).info.methods[0], targets=LORA['targets'])])
    )
    assert mmpeft.uniform_soup([one, other])


def test_averaged_factors_of_lora_keep_their_rank(task):
    files = [task(seed, LORA) for seed in (1, 2)]
    shapes = {name: tensor.shape for name, tensor in load_file(files[0]).items()}
    assert {name: tensor.shape for name, tensor in mmpeft.uniform_soup(files).items()} == shapes


def test_deltas_are_asked_of_lora_alone(task):
    file = task(1)
    with pytest.raises(mmpeft.SoupError, match='holds no LoRA'):
        mmpeft.uniform_soup([file], lora='delta')
    with pytest.raises(ValueError, match="'factors' or 'delta', got 'product'"):
        mmpeft.uniform_soup([file], lora='product')


# What does not mix


@pytest.mark.parametrize(
    'change, words',
    [
        (dict(start='c' * 64), ('start is ', 'aaa', 'ccc', 'insist=True')),
        (dict(heldout='c' * 64), ('heldout is ', 'bbb', 'ccc')),
        (dict(heldout=None), ('does not say which images were held out of it',)),
        (dict(start=None), ('does not say which start file',)),
    ],
)
def test_files_of_other_runs_are_refused_unless_told(change, words, run):
    files = [run(1), run(2, **change)]
    with pytest.raises(mmpeft.SoupError) as caught:
        mmpeft.uniform_soup(files)
    assert all(word in str(caught.value) for word in (str(files[1]), *words))
    assert mmpeft.uniform_soup(files, insist=True)


def test_other_classes_are_refused_unless_told(task, whole):
    for one, two in (
        (task(1), rewritten(task(2), info=dict(classes=['dog']))),
        (whole(1, classes=('dog',)), whole(2, classes=('cat',))),
    ):
        with pytest.raises(mmpeft.SoupError, match=r"do not mix: classes(.0)? is .* and '?(dog|cat)'? in the other"):
            mmpeft.uniform_soup([one, two])
        assert mmpeft.uniform_soup([one, two], insist=True)


@pytest.mark.parametrize(
    'other, words',
    [
        (dict(method=dict(MONA, bottleneck=2)), 'methods.0.bottleneck is 4 in the one and 2 in the other'),
        (dict(method=dict(type='SSF')), "methods.0.type is 'Mona' in the one and 'SSF' in the other"),
        (dict(classes=2), r"tensors.head.0.bias is 'floating \(3,\)' in the one and 'floating \(2,\)'"),
    ],
)
@pytest.mark.parametrize('insist', [False, True])
def test_another_model_is_refused_whatever_is_insisted_on(other, words, insist, task):
    with pytest.raises(mmpeft.SoupError, match=words):
        mmpeft.uniform_soup([task(1), task(2, **other)], insist=insist)


def test_another_base_is_refused_with_the_tensor_that_differs(task):
    one = task(1)
    digests = dict(read_adapters(one).info.digests)
    digests['patch_embed.projection.bias'] = 'other'
    with pytest.raises(mmpeft.SoupError, match="base.patch_embed.projection.bias is '.*' in the one and 'other'"):
        mmpeft.uniform_soup([one, rewritten(task(2), info=dict(digests=digests))], insist=True)


def test_an_adapter_file_and_a_checkpoint_are_refused(task, whole):
    with pytest.raises(mmpeft.SoupError, match="kind is 'adapter file' in the one and 'checkpoint' in the other"):
        mmpeft.uniform_soup([task(1), whole(1)])


def test_a_run_that_diverged_is_refused(numbers):
    files = numbers(1, float('nan'))
    with pytest.raises(mmpeft.SoupError, match=f'{files[1]} holds NaN in weight: its run diverged'):
        mmpeft.uniform_soup(files)


def test_what_is_no_file_of_weights_is_refused(tmp_path):
    torch.save(dict(model=Path), tmp_path / 'code.pth')
    torch.save([1], tmp_path / 'list.pth')
    (tmp_path / 'text.pth').write_text('no checkpoint')
    for name, words in (('code', 'no code is run'), ('list', 'no state dict'), ('text', 'first bytes are')):
        with pytest.raises(mmpeft.SoupError, match=f'{name}.pth .*{words}'):
            mmpeft.uniform_soup([tmp_path / f'{name}.pth'])
    torch.save(dict(weight=torch.zeros(1000)), tmp_path / 'whole.pth')
    with zipfile.ZipFile(tmp_path / 'whole.pth') as source, zipfile.ZipFile(tmp_path / 'bomb.pth', 'w', 8) as target:
        for entry in source.infolist():
            target.writestr(entry.filename, source.read(entry))
    with pytest.raises(mmpeft.SoupError, match='would unpack to'):
        mmpeft.uniform_soup([tmp_path / 'bomb.pth'])
    with pytest.raises(mmpeft.SoupError, match='No checkpoint file'):
        mmpeft.uniform_soup([tmp_path / 'nothing.pth'])
    with pytest.raises(mmpeft.SoupError, match='at least one file'):
        mmpeft.uniform_soup([])


# Greedy


def score_by(table):
    """Score a soup of one-number states by that number."""
    return lambda state: table[round(state['weight'].item(), 6)]


@pytest.fixture
def numbers(tmp_path):
    def write(*values):
        paths = []
        for index, value in enumerate(values):
            paths.append(str(tmp_path / f'{index}.pth'))
            state = dict(weight=torch.tensor([float(value)]))
            torch.save(dict(state_dict=state, meta=dict(mmpeft=RUN)), paths[-1])
        return paths

    return write


def test_a_greedy_soup_takes_from_the_best_on_what_does_not_make_it_worse(numbers):
    files = numbers(0, 4, 8)
    table = {0.0: 0.5, 4.0: 0.7, 8.0: 0.6, 6.0: 0.65, 2.0: 0.8}
    soup = mmpeft.greedy_soup(files, score_by(table))
    assert soup.ingredients == [files[1], files[0]] and soup.score == 0.8
    assert soup.state_dict['weight'].item() == 2
    assert [(s.path, s.score, s.soup_score, s.accepted) for s in soup.steps] == [
        (files[1], 0.7, 0.7, True),
        (files[2], 0.6, 0.65, False),
        (files[0], 0.5, 0.8, True),
    ]


def test_a_file_that_changes_nothing_is_accepted_unless_strict(numbers):
    files = numbers(0, 4)
    table = {0.0: 0.5, 4.0: 0.5, 2.0: 0.5}
    assert mmpeft.greedy_soup(files, score_by(table)).ingredients == files
    assert mmpeft.greedy_soup(files, score_by(table), strict=True).ingredients == files[:1]


def test_known_scores_are_not_computed_again(numbers):
    files = numbers(0, 4)
    soup = mmpeft.greedy_soup(files, score_by({2.0: 0.4}), scores={files[0]: 0.1, Path(files[1]): 0.6})
    assert soup.ingredients == [files[1]] and soup.score == 0.6


def test_a_greedy_soup_is_never_worse_than_the_best_file(numbers):
    files = numbers(*range(6))
    torch.manual_seed(3)
    for _ in range(20):
        seen = {}
        soup = mmpeft.greedy_soup(
            files, lambda state, seen=seen: seen.setdefault(state['weight'].item(), torch.rand(()).item())
        )
        assert soup.score == max(step.soup_score for step in soup.steps if step.accepted)
        assert soup.score >= max(step.score for step in soup.steps)


def test_mixes_are_finished_and_single_files_are_not(numbers):
    files = numbers(0, 4)
    soup = mmpeft.greedy_soup(
        files, score_by({0.0: 0.5, 4.0: 0.4, 12.0: 0.9}), finish=lambda state: dict(weight=state['weight'] + 10)
    )
    assert soup.score == 0.9 and soup.state_dict['weight'].item() == 12


def test_a_score_that_is_no_number_and_a_file_twice_are_refused(numbers):
    files = numbers(0, 4)
    with pytest.raises(mmpeft.SoupError, match=f'score of {files[0]} is not a number'):
        mmpeft.greedy_soup(files, lambda state: float('nan'))
    with pytest.raises(mmpeft.SoupError, match=f'soup with {files[1]} is not a number'):
        mmpeft.greedy_soup(files, score_by({0.0: 0.5, 4.0: 0.4, 2.0: float('nan')}))
    with pytest.raises(mmpeft.SoupError, match='named twice'):
        mmpeft.greedy_soup([files[0], files[0]], len)


# Files of soups


@pytest.mark.parametrize('method', ['Mona', 'SSF', 'LoRA', 'BitFit', 'mixed'])
def test_a_written_soup_of_adapters_loads_as_its_ingredients_do(method, task, tmp_path):
    files = [task(seed, METHODS[method]) for seed in (1, 2)]
    state = mmpeft.uniform_soup(files)
    mmpeft.write_soup(tmp_path / 'soup.safetensors', state, files, scores={files[1]: 0.25})
    model = detector(METHODS[method], seed=5).eval()
    info = mmpeft.load_adapters(model, tmp_path / 'soup.safetensors')
    assert same({name: weights(model)[name] for name in state}, state)
    assert model(image()).isfinite().all()
    assert (info.start, info.heldout) == (RUN['start'], RUN['heldout'])
    assert info.soup == [['1.safetensors', None], ['2.safetensors', 0.25]]


def test_a_written_soup_of_checkpoints_is_a_checkpoint(whole, tmp_path):
    files = [whole(1), whole(2, heldout='c' * 64)]
    state = mmpeft.uniform_soup(files, insist=True)
    mmpeft.write_soup(tmp_path / 'soup.pth', state, files)
    soup = torch.load(tmp_path / 'soup.pth', weights_only=True)
    assert same(soup['state_dict'], state)
    assert soup['meta'] == dict(
        cfg='x = 1',
        dataset_meta=dict(classes=('cat',)),
        mmpeft=dict(start=RUN['start'], heldout=None, soup=[['1.pth', None], ['2.pth', None]]),
    )
    assert open_ingredients([tmp_path / 'soup.pth'], insist=True)


def test_writing_overwrites_nothing_and_keeps_the_kind_of_file(task, tmp_path):
    file = task(1)
    before = file.read_bytes()
    with pytest.raises(FileExistsError, match='name another place'):
        mmpeft.write_soup(file, mmpeft.uniform_soup([file]), [file])
    with pytest.raises(mmpeft.SoupError, match='ends in .safetensors, got'):
        mmpeft.write_soup(tmp_path / 'soup.pth', {}, [file])
    assert file.read_bytes() == before and list(tmp_path.iterdir()) == [file]
