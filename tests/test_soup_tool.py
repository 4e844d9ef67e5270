import json
import shutil
from dataclasses import replace

import pytest
import torch
from ingredients import HELD, train, write_segmentor
from tiny import same
from tiny_data import tool

from mmpeft.adapter_file import write_file
from mmpeft.checkpoint import read_adapters
from mmpeft.mm.soups.heldout import heldout_hash
from mmpeft.mm.soups.scoring import FixedBatches, Scorer
from mmpeft.soups import uniform_soup

LIST = heldout_hash(HELD)
DAMAGE = (', blur', ', noise', ', jpeg')


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """The tiny segmentor's config, a run of it with two checkpoints, and three files that differ from its own."""
    root = tmp_path_factory.mktemp('soup')
    hooks = "default_hooks['checkpoint'].update(interval=1)"
    config = write_segmentor(root, hooks=hooks)
    train(config, root / 'run')
    write_moved(read_adapters(root / 'run/adapters_last.safetensors'), root, 3)
    return root


def write_moved(file, folder, count):
    """Files of runs from one start, each some way from the given one."""
    for number in range(count):
        torch.manual_seed(number)
        moved = {n: t + 0.05 * torch.randn_like(t) if t.dim() > 1 else t for n, t in file.tensors.items()}
        info = replace(file.info, start='0' * 64, heldout=LIST)
        write_file(folder / f'{number}.safetensors', info, moved)
    return [str(folder / f'{number}.safetensors') for number in range(count)]


def soup(root, recipe, out, *more, files=None):
    files = files or [str(root / f'{number}.safetensors') for number in range(3)]
    tool('soup').main([recipe, str(root / 'segmentor.py'), *files, '--out', str(out), '--images', '4', *more])


@pytest.fixture
def evaluations(monkeypatch):
    """The number of validations that are run."""
    from mmengine.runner import ValLoop

    count, run = [], ValLoop.run
    monkeypatch.setattr(ValLoop, 'run', lambda self: (count.append(1), run(self))[1])
    return count


def test_a_greedy_soup_is_an_adapter_file_with_a_table_and_a_plot_and_never_worse_than_the_best(trained, tmp_path):
    soup(trained, 'greedy', tmp_path / 'greedy.safetensors')
    info = read_adapters(tmp_path / 'greedy.safetensors').info
    assert info.heldout == LIST and info.start == '0' * 64
    table = (tmp_path / 'greedy.md').read_text()
    words = table.split()
    assert table.count('.safetensors') == 3 and '| candidate | mIoU | soup with it | in the soup |' in table
    best, own = float(words[-1]), float(words[-4].rstrip(';'))
    assert own >= best
    assert (tmp_path / 'greedy.png').stat().st_size > 1000


def test_what_was_scored_once_is_not_scored_again(trained, tmp_path, evaluations):
    soup(trained, 'uniform', tmp_path / 'a.safetensors')
    assert len(evaluations) == 4  # three files and the soup
    soup(trained, 'uniform', tmp_path / 'b.safetensors')
    assert len(evaluations) == 4
    soup(trained, 'uniform', tmp_path / 'c.safetensors', '--cfg-options', 'test_evaluator.iou_metrics=[mIoU,mDice]')
    assert len(evaluations) == 8


def test_a_killed_soup_goes_on_with_the_scores_it_has(trained, tmp_path, evaluations, monkeypatch):
    call = Scorer.__call__

    def killed(self, state, what=''):
        if what == 'soup':
            raise KeyboardInterrupt
        return call(self, state, what)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Scorer, '__call__', killed)
        soup(trained, 'greedy', tmp_path / 'a.safetensors')
    assert len(json.loads((tmp_path / 'scores.json').read_text())) == 3
    soup(trained, 'greedy', tmp_path / 'a.safetensors')
    assert len(evaluations) == 5


def test_the_tensors_of_a_uniform_soup_are_the_mean_with_batch_norm_statistics_of_its_own(trained, tmp_path):
    soup(trained, 'uniform', tmp_path / 'a.safetensors')
    found = read_adapters(tmp_path / 'a.safetensors').tensors
    mean = uniform_soup([trained / f'{number}.safetensors' for number in range(3)], finish=lambda state: state)
    statistics = {name for name in mean if 'running_' in name}
    assert statistics and not any(torch.equal(found[name], mean[name]) for name in statistics)
    kept = {name for name in mean if name not in statistics and 'num_batches' not in name}
    assert same({n: found[n] for n in kept}, {n: mean[n] for n in kept})


@pytest.mark.parametrize('images, alike, sizes', [(5, False, [2, 2, 1]), (5, True, [2, 2]), (1, True, [1])])
def test_batches_are_the_same_each_time_and_of_one_size_where_they_have_to_be(images, alike, sizes):
    batches = FixedBatches(dict(type='NoiseDataset'), 2, images, alike)
    first, second = ([batch['inputs'] for batch in batches] for _ in range(2))
    assert [len(inputs) for inputs in first] == sizes
    assert all(torch.equal(x, y) for a, b in zip(first, second, strict=True) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize('by', ['block', pytest.param('global', marks=pytest.mark.slow)])
def test_a_learned_soup_tells_how_much_of_each_file_it_took(trained, tmp_path, by):
    soup(trained, 'learned', tmp_path / 'a.safetensors', '--by', by, '--epochs', '2')
    rows = [line.split('|') for line in (tmp_path / 'a.md').read_text().splitlines()]
    shares = {row[1].strip(): [float(share) for share in row[2:-1]] for row in rows[10:]}
    assert {*shares} > {'decode_head'} if by == 'block' else {*shares} == {'all'}
    assert all(abs(sum(values) - 1) < 2e-3 and max(values) - min(values) > 1e-3 for values in shares.values())
    assert read_adapters(tmp_path / 'a.safetensors').info.heldout == LIST


def test_a_temperature_is_learned_beside_and_told(trained, tmp_path):
    soup(trained, 'learned', tmp_path / 'a.safetensors', '--by', 'global', '--epochs', '2', '--temperature')
    text = (tmp_path / 'a.md').read_text()
    assert 0 < abs(float(text.split('Its logits were multiplied by ')[1].split()[0]) - 1) < 0.5


def test_deltas_of_lora_are_scored_as_the_file_of_the_soup_is(trained, tmp_path, capsys):
    two, four = (
        ['--cfg-options', 'model.backbone.method.type=LoRA', f'model.backbone.method.rank={r}'] for r in (2, 4)
    )
    train(trained / 'segmentor.py', tmp_path / 'run', *two)
    files = write_moved(read_adapters(tmp_path / 'run/adapters_last.safetensors'), tmp_path, 2)
    out = tmp_path / 'soup.safetensors'
    soup(trained, 'uniform', out, '--lora', 'delta', *two, files=files)
    assert read_adapters(out).info.methods[0]['rank'] == 4 and 'LoRA has 2 times its rank' in capsys.readouterr().out
    table = ['--splits', 'heldout', '--out', str(tmp_path / 'score.md')]
    tool('score').main([str(trained / 'segmentor.py'), str(out), *table, *four])
    score = (tmp_path / 'score.md').read_text().split()[-2]
    assert f'soup of 2 of 2 files, mIoU {score};' in (tmp_path / 'soup.md').read_text()
    with pytest.raises(SystemExit, match='mixes the factors of LoRA; leave out --lora delta'):
        soup(trained, 'learned', tmp_path / 'b.safetensors', '--lora', 'delta', *two, files=files)


def test_a_soup_of_equal_files_scores_as_they_do(trained, tmp_path):
    twin = shutil.copy(trained / '0.safetensors', tmp_path / 'twin.safetensors')
    soup(trained, 'uniform', tmp_path / 'a.safetensors', files=[str(trained / '0.safetensors'), str(twin)])
    lines = (tmp_path / 'a.md').read_text().splitlines()
    assert lines[2].split('|')[2:4] == lines[3].split('|')[2:4]


def test_the_last_checkpoints_of_a_run_are_averaged_to_a_checkpoint(trained, tmp_path):
    soup(trained, 'last', tmp_path / 'last.pth', '--count', '2', files=[str(trained / 'run')])
    meta = torch.load(tmp_path / 'last.pth', weights_only=True)['meta']['mmpeft']
    assert meta['heldout'] == LIST and [name for name, _ in meta['soup']] == ['iter_1.pth', 'iter_2.pth']
    with pytest.raises(SystemExit, match='holds 2 checkpoints, and 5 are to be averaged'):
        soup(trained, 'last', tmp_path / 'more.pth', files=[str(trained / 'run')])


def test_choosing_on_the_test_data_needs_a_flag_and_warns(trained, tmp_path, evaluations):
    files = [str(trained / f'{number}.safetensors') for number in range(2)]
    with pytest.warns(UserWarning, match='has seen these: report other images'):
        soup(trained, 'greedy', tmp_path / 'a.safetensors', '--test-split-i-know', files=files)
    with pytest.raises(SystemExit, match='names none: set heldout.ann_file .*--test-split-i-know'):
        soup(trained, 'greedy', tmp_path / 'b.safetensors', '--cfg-options', 'heldout=None', files=files)


def test_a_uniform_soup_needs_no_held_out_images(trained, tmp_path, evaluations):
    soup(trained, 'uniform', tmp_path / 'a.safetensors', '--cfg-options', 'heldout=None')
    assert not evaluations and [p.name for p in tmp_path.iterdir()] == ['a.safetensors']


def test_other_held_out_images_than_the_runs_had_are_refused(trained, tmp_path):
    (trained / 'data/other.txt').write_text('1\n')
    with pytest.raises(SystemExit, match='0.safetensors was trained with other held-out images'):
        soup(trained, 'greedy', tmp_path / 'a.safetensors', '--heldout', 'other.txt')


def test_nothing_is_overwritten(trained, tmp_path):
    (tmp_path / 'a.md').write_text('mine')
    with pytest.raises(SystemExit, match='a.md exists'):
        soup(trained, 'uniform', tmp_path / 'a.safetensors')


def test_a_wrong_ending_is_refused_before_anything_is_scored(trained, tmp_path, evaluations):
    with pytest.raises(SystemExit, match='ends in .safetensors, got .*a.pth'):
        soup(trained, 'uniform', tmp_path / 'a.pth')
    assert not evaluations


@pytest.mark.parametrize('flag', ['--images', '--epochs', '--count'])
def test_nothing_is_made_of_nothing(trained, tmp_path, flag):
    with pytest.raises(SystemExit, match=f'At least one image, one epoch and one checkpoint .*{flag} 0'):
        soup(trained, 'uniform', tmp_path / 'a.safetensors', flag, '0')


def test_a_score_of_another_name_is_asked_for(trained, tmp_path):
    with pytest.raises(SystemExit, match='gives no score mAP; name one with --metric: aAcc, mIoU, mAcc'):
        soup(trained, 'greedy', tmp_path / 'a.safetensors', '--metric', 'mAP')


@pytest.mark.slow
def test_files_and_their_ensemble_are_scored_side_by_side_clean_and_damaged(trained, tmp_path, evaluations):
    files = [str(trained / f'{number}.safetensors') for number in range(2)]
    arguments = [str(trained / 'segmentor.py'), *files, '--ensemble', *files, '--corrupt']
    tool('score').main([*arguments, '--out', str(tmp_path / 'a.md')])
    head, _, *rows = [line.split('|')[1:-1] for line in (tmp_path / 'a.md').read_text().splitlines()]
    assert [cell.strip() for cell in head] == ['mIoU', *(f'{s}{k}' for s in ('heldout', 'test') for k in ('', *DAMAGE))]
    assert [row[0].strip() for row in rows] == [*files, 'ensemble of 2'] and len({tuple(row) for row in rows}) == 3
    assert len(evaluations) == 3 * 8
    soup(trained, 'uniform', tmp_path / 'b.safetensors', files=files)
    assert len(evaluations) == 3 * 8 + 1


def test_the_ensemble_of_one_scores_as_that_one(trained, tmp_path):
    file = str(trained / '0.safetensors')
    tool('score').main(
        [str(trained / 'segmentor.py'), file, '--ensemble', file, '--splits', 'test', '--out', str(tmp_path / 'a.md')]
    )
    rows = (tmp_path / 'a.md').read_text().splitlines()[2:]
    assert rows[0].split('|')[2] == rows[1].split('|')[2]
