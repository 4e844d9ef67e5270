"""Which checkpoint --resume takes, and which it refuses."""

import os
from pathlib import Path

import pytest
from mmengine.config import Config, ConfigDict
from mmengine.hooks import CheckpointHook as StockCheckpointHook
from resumed import config
from tiny import pretrained, runner_config, trained, wrapped
from tiny_data import MAIN, main_options, write_data

from mmpeft.mm.checks import UserError
from mmpeft.mm.running.config import use_exact_resume
from mmpeft.mm.running.run import _set_start, train
from mmpeft.mm.saving import resume
from mmpeft.mm.saving.resume import check_same_methods, find_resumable
from mmpeft.mm.weights import checkpoints

OURS = dict(type='mmpeft.ExactResumeHook')


@pytest.fixture
def work_dir(tmp_path):
    """The work dir of three epochs, whose files were written in this order."""
    trained(config(tmp_path, default_hooks=dict(checkpoint=dict(type='mmpeft.CheckpointHook', interval=1))))
    for epoch in (1, 2, 3):
        os.utime(tmp_path / f'epoch_{epoch}.pth', (epoch, epoch))
    return tmp_path


@pytest.fixture
def said(monkeypatch):
    lines = []
    monkeypatch.setattr(resume, 'print_log', lambda line, *_, **__: lines.append(line))
    return lines


def test_the_last_checkpoint_is_taken_without_a_word(work_dir, said):
    assert find_resumable(work_dir) == str(work_dir / 'epoch_3.pth') and not said


def test_the_last_checkpoint_is_read_once_before_the_runner_reads_it(work_dir, monkeypatch):
    read, reads = checkpoints.read_checkpoint, []
    monkeypatch.setattr(checkpoints, 'read_checkpoint', lambda path: (reads.append(Path(path).name), read(path))[1])
    cfg = Config(dict(model=dict(type='DropoutModel'), work_dir=str(work_dir)))
    _set_start(cfg, 'auto')
    assert cfg.load_from == str(work_dir / 'epoch_3.pth') and reads == ['epoch_3.pth']


def test_a_work_dir_without_a_checkpoint_has_none(tmp_path):
    assert find_resumable(tmp_path) is None and find_resumable(tmp_path / 'gone') is None


@pytest.mark.parametrize('size', [0, 1, 2000, -1])
def test_a_checkpoint_that_is_cut_off_is_passed_over_for_the_one_before(work_dir, said, size):
    last = work_dir / 'epoch_3.pth'
    os.truncate(last, size if size >= 0 else last.stat().st_size + size)
    assert find_resumable(work_dir) == str(work_dir / 'epoch_2.pth')
    assert len(said) == 1 and 'epoch_3.pth' in said[0] and said[0].endswith('epoch_2.pth instead.')


def test_a_checkpoint_that_is_gone_is_passed_over_for_the_one_before(work_dir, said):
    (work_dir / 'epoch_3.pth').unlink()
    assert find_resumable(work_dir) == str(work_dir / 'epoch_2.pth') and 'No checkpoint file' in said[0]


@pytest.mark.parametrize('text', ['', None])
def test_without_a_name_in_last_checkpoint_the_newest_is_taken(work_dir, said, text):
    pointer = work_dir / 'last_checkpoint'
    pointer.unlink() if text is None else pointer.write_text(text)
    assert find_resumable(work_dir) == str(work_dir / 'epoch_3.pth') and 'does not name a checkpoint' in said[0]


def test_weights_alone_and_best_checkpoints_are_passed_over(work_dir, said):
    (work_dir / 'epoch_3.pth').rename(work_dir / 'best_score_epoch_3.pth')
    pretrained(work_dir)
    assert find_resumable(work_dir) == str(work_dir / 'epoch_2.pth')


def test_a_work_dir_that_was_moved_is_resumed(work_dir, said):
    moved = work_dir.rename(work_dir.parent / 'moved')
    assert find_resumable(moved) == str(moved / 'epoch_3.pth') and len(said) == 1


def test_an_address_is_left_to_mmengine(tmp_path):
    (tmp_path / 'last_checkpoint').write_text('s3://bucket/epoch_1.pth')
    assert find_resumable(tmp_path) == 's3://bucket/epoch_1.pth'


def test_where_no_checkpoint_is_whole_the_user_is_asked(work_dir):
    for path in work_dir.glob('*.pth'):
        os.truncate(path, 100)
    with pytest.raises(UserError, match=r'epoch_3\.pth is damaged.* To start anew, delete .*last_checkpoint'):
        find_resumable(work_dir)


def checkpoint_of(method: dict, **options) -> dict:
    cfg = Config(dict(model=dict(type='ToyModel', backbone=wrapped(method=method, **options))))
    return dict(meta=dict(cfg=cfg.pretty_text))


def named(**options) -> Config:
    return Config(dict(model=dict(backbone=dict(type='mmpeft.MonaSwinTransformer', **options))))


DIFFERENT = [
    (dict(type='SSF'), r'model\.backbone has Mona in the checkpoint and SSF in the config'),
    (dict(type='Mona', bottleneck=32), 'bottleneck of Mona is 64 in the checkpoint and 32 in the config'),
    (dict(type='Mona', dropout=0.2), r'dropout of Mona is 0\.1 in the checkpoint and 0\.2 in the config'),
    (dict(type='Mona', sites=['after_ffn']), r"sites of Mona is \['after_attn', 'after_ffn'\] in .* \['after_ffn'\]"),
    (dict(type='Mona', blocks='stages.3'), "blocks of Mona is '' in the checkpoint and 'stages.3' in the config"),
    ([dict(type='Mona'), dict(type='BitFit')], 'has Mona in the checkpoint and Mona, BitFit in the config'),
]


@pytest.mark.parametrize('method, message', DIFFERENT, ids=lambda value: str(value)[:40])
def test_another_method_option_site_or_block_is_refused(method, message):
    cfg = Config(dict(model=dict(type='ToyModel', backbone=wrapped(method=method))))
    with pytest.raises(UserError, match=f'Training cannot go on with other adapters: .*{message}.* load_from='):
        check_same_methods(cfg, checkpoint_of(dict(type='Mona')))


def test_a_backbone_without_adapters_is_refused():
    cfg = Config(dict(model=dict(type='ToyModel', backbone=dict(type='SwinTransformer'))))
    with pytest.raises(UserError, match='has Mona in the checkpoint and no adapters in the config'):
        check_same_methods(cfg, checkpoint_of(dict(type='Mona')))


@pytest.mark.parametrize(
    'cfg',
    [
        Config(dict(model=dict(backbone=wrapped(method=[dict(type='Mona')])))),
        Config(dict(model=dict(backbone=wrapped(method=dict(type='Mona', sites=('after_ffn', 'after_attn')))))),
        named(bottleneck=64, embed_dims=8),
    ],
    ids=['list', 'sites in another order', 'by name'],
)
def test_the_same_adapters_in_other_words_are_not_refused(cfg):
    check_same_methods(cfg, checkpoint_of(dict(type='Mona', init='trunc_normal')))


def test_no_code_is_run_from_the_config_in_a_checkpoint(tmp_path):
    text = f"import os\nos.mkdir('{tmp_path}/trace')\nmodel = dict(backbone=os.mkdir('{tmp_path}/trace'))"
    check_same_methods(Config(dict(model=dict(type='ToyModel'))), dict(meta=dict(cfg=text)))
    assert not (tmp_path / 'trace').exists()


@pytest.mark.parametrize(
    'method, message',
    [
        (dict(type='Mona', bottleneck=6), r'norm\.weight|down\.weight is \(4, \d+\) in the checkpoint and \(6, \d+\)'),
        (dict(type='Mona', bottleneck=4, sites=['after_ffn']), 'tensors are in the checkpoint alone, .*after_attn'),
    ],
)
def test_the_hook_refuses_other_places_and_sizes_where_the_checkpoint_holds_no_config(
    tmp_path, monkeypatch, method, message
):
    base = pretrained(tmp_path)
    trained(runner_config(tmp_path, wrapped(base)))
    monkeypatch.setattr(resume, '_model_of', lambda text: None)
    cfg = runner_config(tmp_path, wrapped(base, method), custom_hooks=[OURS], resume=True)
    with pytest.raises(UserError, match=message):
        trained(cfg)


def test_the_tool_replaces_the_stock_hook_and_keeps_its_options():
    for name in ('CheckpointHook', 'mmengine.CheckpointHook', StockCheckpointHook):
        cfg = Config(dict(default_hooks=dict(checkpoint=dict(type=name, interval=3, max_keep_ckpts=2))))
        use_exact_resume(cfg)
        assert cfg.default_hooks.checkpoint == dict(type='mmpeft.CheckpointHook', interval=3, max_keep_ckpts=2)
        assert cfg.custom_hooks == [OURS]


@pytest.mark.parametrize('hook', [None, dict(type='mmyolo.OtherHook')])
def test_the_tool_leaves_another_hook_and_the_lack_of_one_alone(hook):
    cfg = Config(dict(default_hooks=dict(checkpoint=hook), custom_hooks=[OURS]))
    use_exact_resume(cfg)
    assert cfg.default_hooks.checkpoint == hook and cfg.custom_hooks == [OURS]


def test_a_config_without_hooks_gets_the_one_that_mmengine_would_give_it():
    cfg = Config(dict())
    use_exact_resume(cfg)
    assert cfg.default_hooks.checkpoint == ConfigDict(type='mmpeft.CheckpointHook', interval=1)


def test_the_tool_goes_on_from_the_whole_checkpoint_and_refuses_other_adapters(tmp_path, capfd):
    options = main_options(write_data(tmp_path / 'data')) | {'train_cfg.max_epochs': 2}
    work_dir = tmp_path / 'work'
    assert train(MAIN, work_dir=str(work_dir), cfg_options=options).iter == 4
    dumped = (work_dir / Path(MAIN).name).read_text()
    with pytest.raises(UserError, match='bottleneck of Mona is 64 in the checkpoint and 8 in the config'):
        train(
            MAIN, work_dir=str(work_dir), resume='auto', cfg_options=options | {'model.backbone.method.bottleneck': 8}
        )
    assert (work_dir / Path(MAIN).name).read_text() == dumped
    os.truncate(work_dir / 'epoch_2.pth', 10_000)
    runner = train(MAIN, work_dir=str(work_dir), resume='auto', cfg_options=options)
    assert runner._load_from.endswith('epoch_1.pth') and runner.iter == 4
    assert 'Training goes on from' in ''.join(capfd.readouterr())


def test_a_run_that_was_killed_before_its_first_checkpoint_starts_from_the_same_weights(tmp_path, monkeypatch):
    started = []
    monkeypatch.setattr('mmpeft.mm.running.run._build', lambda cfg: started.append(cfg) or pytest.skip.Exception())
    options = main_options(write_data(tmp_path / 'data')) | {'load_from': 'https://host/base.pth'}
    with pytest.raises(AttributeError):
        train(MAIN, work_dir=str(tmp_path), resume='auto', cfg_options=options)
    assert started[0].load_from == 'https://host/base.pth' and started[0].resume is False
