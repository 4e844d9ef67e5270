"""What the tools say of numbers on the command line, and of weights once they are loaded."""

import pytest
import torch
from mmengine.config import Config
from tiny_data import SEGMENTOR, tool, write_data

from mmpeft.mm.checks import UserError, check_values, check_work_dir


@pytest.fixture
def config(tmp_path):
    """A config that trains two iterations, with what is written behind it."""

    def write(more=''):
        root = tmp_path / 'data'
        path = tmp_path / 'config.py'
        path.write_text(SEGMENTOR.replace('{root}', str(root if root.exists() else write_data(root))) + more)
        return str(path)

    return write


def error_of(name, *words):
    with pytest.raises(SystemExit) as ended:
        tool(name).main([str(word) for word in words])
    text = str(ended.value.code)
    assert text.startswith('error: ') and '\n' not in text
    return text


@pytest.mark.parametrize(
    'option, error',
    [
        ('train_cfg.max_iters=two', "train_cfg.max_iters is 'two', and it takes a whole number of 1 or more"),
        ('train_cfg.max_iters=0', 'train_cfg.max_iters is 0'),
        ('train_cfg.val_interval=1.5', 'train_cfg.val_interval is 1.5'),
        ('train_dataloader.batch_size=-1', 'train_dataloader.batch_size is -1'),
        ('train_dataloader.num_workers=few', "train_dataloader.num_workers is 'few', and it takes a whole number of 0"),
        ('randomness.seed=x', "randomness.seed is 'x'"),
        ('optim_wrapper.optimizer.lr=-1e-4', 'optim_wrapper.optimizer.lr is -0.0001'),
        ('optim_wrapper.optimizer.lr=1e-4x', "optim_wrapper.optimizer.lr is '1e-4x'"),
    ],
)
def test_numbers_that_cannot_be_trained_with_are_refused(config, tmp_path, option, error):
    assert error in error_of('train', config(), '--work-dir', tmp_path / 'work', '--cfg-options', option)
    assert not (tmp_path / 'work').exists()


def test_a_rate_of_0_is_told_at_once(monkeypatch):
    told = []
    monkeypatch.setattr('mmpeft.mm.checks.values.print_log', lambda text, *_, **__: told.append(text))
    check_values(Config(dict(optim_wrapper=dict(optimizer=dict(lr=0.0)))))
    assert told == ['optim_wrapper.optimizer.lr is 0: nothing will be trained.']


def test_whole_numbers_may_be_written_as_floats():
    check_values(Config(dict(train_cfg=dict(max_iters=1.6e5), optim_wrapper=dict(optimizer=dict(lr=1)))))


@pytest.mark.parametrize('place', ['file', 'file/below/it'])
def test_a_work_dir_that_is_a_file_or_below_one_is_refused(config, tmp_path, place):
    (tmp_path / 'file').write_text('')
    text = error_of('train', config(), '--work-dir', tmp_path / place)
    assert text == f'error: The work dir {tmp_path}/{place} cannot be made: {tmp_path}/file is no folder.'


def test_a_work_dir_that_may_not_be_written_to_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr('os.access', lambda *_: False)
    with pytest.raises(UserError, match='cannot be written to'):
        check_work_dir(str(tmp_path / 'work'))


def test_indices_of_images_that_are_not_there_are_refused(config, tmp_path):
    change = "train_dataloader['dataset']['dataset'] = dict(dataset, indices={})\n"
    text = error_of('train', config(change.format([0, 4])), '--work-dir', tmp_path / 'work')
    assert text == 'error: train_dataloader.dataset.dataset.indices goes up to 4, and the last of its 4 images is 3.'
    for indices in ([0, 3], 100):
        tool('train').main([config(change.format(indices)), '--work-dir', f'{tmp_path}/work{indices}'])


@pytest.fixture
def trained(config, tmp_path):
    """A config and the checkpoint of its run."""
    path = config()
    tool('train').main([path, '--work-dir', str(tmp_path / 'work')])
    return path, tmp_path / 'work/iter_2.pth'


def test_weights_that_are_no_numbers_are_told_before_training_and_testing(trained, tmp_path):
    path, file = trained
    checkpoint = torch.load(file, weights_only=False)
    checkpoint['state_dict']['backbone.norm3.bias'][3] = float('nan')
    torch.save(checkpoint, file)
    told = '1 parameters of the model hold nan or inf before anything is trained: backbone.norm3.bias.'
    assert told in error_of('train', path, '--work-dir', tmp_path / 'next', '--cfg-options', f'load_from={file}')
    assert told in error_of('test', path, file, '--work-dir', tmp_path / 'test')


def test_a_test_with_other_classes_than_those_of_the_checkpoint_says_so(trained, config, tmp_path):
    _, file = trained
    swapped = config("dataset['metainfo']['classes'] = ('thing', 'ground')\n")
    text = error_of('test', swapped, file, '--work-dir', tmp_path / 'test')
    assert "trained on ('ground', 'thing'), and the test data have ('thing', 'ground'): the same classes in" in text
    renamed = config("dataset['metainfo']['classes'] = ('water', 'land')\n")
    tool('test').main([renamed, str(file), '--work-dir', str(tmp_path / 'renamed')])
    log = next((tmp_path / 'renamed').rglob('*.log')).read_text()
    assert 'The classes differ' in log and "and the test data have ('water', 'land')" in log


def test_a_test_with_heads_of_another_size_than_the_checkpoint_is_refused(trained, config, tmp_path):
    _, file = trained
    other = config("dataset['metainfo']['classes'] = ('a', 'b', 'c')\nmodel['decode_head']['num_classes'] = 3\n")
    text = error_of('test', other, file, '--work-dir', tmp_path / 'test')
    assert 'is of another model than the config: it has decode_head.conv_seg.weight of shape (2, 8, 1, 1)' in text


def test_a_crop_that_leaves_all_boxes_outside_is_refused():
    cfg = Config.fromfile('configs/mona_swin_dota.py')
    check_values(cfg)
    cfg.train_dataloader.dataset.pipeline[4].scale = (256, 256)
    with pytest.raises(UserError, match=r"crop_size is \(1024, 1024\).*--cfg-options 'model.crop_size=\(256, 256\)'"):
        check_values(cfg)
