"""The tools through their own ``main``: what they do, and the one line that bad input gets."""

import os
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import checkpoint as stock
from tiny_data import MAIN, ROTATED, SEGMENTOR, main_options, tool, words, write_data

from mmpeft.mm.checks import UserError, check_data, read_config
from mmpeft.mm.running import run
from mmpeft.mm.running.cli import explain, one_line_errors
from mmpeft.mm.weights.checkpoints import read_checkpoint


def error_of(name: str, *arguments: str) -> str:
    """What a tool ends with, when that is one line."""
    with pytest.raises(SystemExit) as ended:
        tool(name).main(list(arguments))
    text = ended.value.code
    assert text.startswith('error: ') and '\n' not in text
    return text


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp('data'))


@pytest.fixture(scope='module')
def trained(data, tmp_path_factory):
    """The work dir of two iterations of the main config on tiny data."""
    work_dir = tmp_path_factory.mktemp('trained')
    tool('train').main([MAIN, '--work-dir', str(work_dir), *words(main_options(data))])
    return work_dir


def test_training_the_main_config_writes_a_checkpoint_that_reads_as_data(trained):
    assert torch.is_tensor(read_checkpoint(trained / 'epoch_1.pth')['state_dict']['neck.fpn_convs.0.conv.weight'])


def test_a_run_opens_with_one_screen_and_leaves_the_rest_to_its_log(data, tmp_path, capfd):
    tool('train').main([MAIN, '--work-dir', str(tmp_path), *words(main_options(data))])
    shown = capfd.readouterr().out
    for said in (
        'CascadeRCNN, Mona in SwinTransformer',
        'parameters of the backbone',
        '4 images, 2 at a time',
        '1 epochs, 2 iterations; validation every 1 epochs on 4 images',
        f'writes to {tmp_path}',
        'Trained for 2 iterations',
    ):
        assert said in shown
    assert len(shown.partition('\nTraining')[0].splitlines()) < 30 and 'System environment' not in shown
    log = next(tmp_path.glob('*/*.log')).read_text()
    assert 'System environment' in log and 'Hooks will be executed' in log and 'Adapters in backbone' in log
    assert 'Saving checkpoint at 1 epochs' in shown


def test_training_reports_what_was_inserted(trained):
    log = next(trained.glob('*/*.log')).read_text()
    assert 'Adapters in backbone:' in log and '1 Mona after_attn' in log


def test_an_adapter_hook_is_turned_into_the_wrapper_before_the_runner_exists(data, tmp_path):
    config = tmp_path / 'hook.py'
    untouched = "model['backbone'] = backbone\ncustom_hooks = [dict(type='mmpeft.MonaHook')]\n"
    config.write_text(SEGMENTOR.replace('{root}', str(data)) + untouched)
    backbone = run._prepare(str(config), None, None, 'none').model.backbone
    assert backbone.type == 'mmpeft.AdaptedBackbone' and backbone.backbone.type == 'SwinTransformer'


def test_stock_loaders_are_back_after_training(trained):
    assert stock.CheckpointLoader._schemes[''] is stock.load_from_local
    assert stock.CheckpointLoader._schemes['https://'] is stock.load_from_http
    assert 'TORCH_FORCE_WEIGHTS_ONLY_LOAD' not in os.environ


def test_testing_prints_the_metrics_and_keeps_predictions(data, trained, tmp_path, capsys):
    arguments = [MAIN, str(trained / 'epoch_1.pth'), '--work-dir', str(tmp_path), '--out', str(tmp_path / 'out.pkl')]
    tool('test').main([*arguments, '--show-dir', 'shown', *words(main_options(data))])
    assert 'coco/segm_mAP' in capsys.readouterr().out.splitlines()[-1]
    assert len(list(tmp_path.glob('*/shown/*.jpg'))) == 4
    assert 'exists; name another place' in error_of('test', *arguments, *words(main_options(data)))


def test_flip_augmentation_of_boxes_runs_and_of_masks_is_refused(data, trained, tmp_path):
    arguments = [MAIN, str(trained / 'epoch_1.pth'), '--work-dir', str(tmp_path), '--tta']
    options = main_options(data)
    text = error_of('test', *arguments, *words(options))
    for word in text.partition('--cfg-options ')[2].rstrip('.').split():
        key, value = word.split('=')
        options[key] = value
    options = {key: value for key, value in options.items() if not key.startswith('model.roi_head.mask_head.')}
    tool('test').main([*arguments, *words(options)])


def test_resuming_goes_on_where_the_run_ended(data, trained, tmp_path):
    options = main_options(data) | {'train_cfg.max_epochs': 2}
    runner = run.train(MAIN, work_dir=str(tmp_path), resume=str(trained / 'epoch_1.pth'), cfg_options=options)
    assert (runner.epoch, runner.iter) == (2, 4)


def test_auto_resume_without_a_checkpoint_starts_anew(data, tmp_path):
    runner = run.train(MAIN, work_dir=str(tmp_path), resume='auto', cfg_options=main_options(data))
    assert runner.iter == 2


def test_a_segmentor_trains_tests_flips_and_writes_label_maps(data, tmp_path):
    config = tmp_path / 'segmentor.py'
    config.write_text(SEGMENTOR.replace('{root}', str(data)))
    work_dir = str(tmp_path / 'work')
    assert run.train(str(config), work_dir=work_dir).iter == 2
    out = tmp_path / 'maps'
    metrics = run.test(str(config), f'{work_dir}/iter_2.pth', work_dir=work_dir, out=str(out), tta=True)
    assert 0 <= metrics['mIoU'] <= 100 and len(list(out.glob('*.png'))) == 4


def test_a_rotated_detector_trains(data, tmp_path):
    config = tmp_path / 'rotated.py'
    config.write_text(ROTATED.replace('{root}', str(data)))
    options = {'train_dataloader.dataset.pipeline.3.scale': (64, 64)}
    assert run.train(str(config), work_dir=str(tmp_path / 'work'), cfg_options=options).iter == 2


def test_flip_augmentation_is_refused_for_rotated_boxes(data, tmp_path, trained):
    config = tmp_path / 'rotated.py'
    config.write_text(
        ROTATED.replace('{root}', str(data)) + 'test_dataloader = dict(_delete_=True)\ntest_evaluator = {}'
    )
    assert 'for rotated boxes there is none' in error_of('test', str(config), str(trained / 'epoch_1.pth'), '--tta')


def test_a_checkpoint_of_another_model_is_refused(data, tmp_path):
    torch.save(dict(state_dict=dict(weight=torch.ones(1))), tmp_path / 'other.pth')
    arguments = [MAIN, f'{tmp_path}/other.pth', '--work-dir', str(tmp_path), *words(main_options(data))]
    assert 'other.pth is of another model' in error_of('test', *arguments)


def test_weights_alone_are_no_run_to_go_on_with(data, tmp_path):
    torch.save(dict(state_dict=dict(weight=torch.ones(1))), tmp_path / 'weights.pth')
    text = error_of('train', MAIN, '--resume', f'{tmp_path}/weights.pth', *words(main_options(data)))
    assert 'training cannot go on from it' in text


def test_no_tool_runs_code_from_a_checkpoint(data, tmp_path):
    class Hostile:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / 'trace'),)

    path = str(tmp_path / 'hostile.pth')
    torch.save(dict(state_dict=dict(weight=torch.ones(1)), meta=Hostile()), path)
    shared = ['--work-dir', str(tmp_path)]
    options = main_options(data)
    from_base = {key: value for key, value in options.items() if key != 'model.backbone.backbone.init_cfg'}
    from_base['model.backbone.backbone.init_cfg.checkpoint'] = path
    for name, arguments, chosen in (
        ('test', [path], options),
        ('train', ['--resume', path], options),
        ('train', [], options | {'load_from': path}),
        ('train', [], from_base),
    ):
        text = error_of(name, MAIN, *arguments, *shared, *words(chosen))
        assert 'no code is run from a checkpoint' in text and not (tmp_path / 'trace').exists()


def test_scaling_the_learning_rate_needs_the_batch_it_was_chosen_for(data, tmp_path):
    config = tmp_path / 'segmentor.py'
    config.write_text(SEGMENTOR.replace('{root}', str(data)))
    assert 'base_batch_size' in error_of('train', str(config), '--auto-scale-lr')


def test_a_missing_config_is_named():
    assert error_of('train', 'nowhere.py') == 'error: No config file nowhere.py.'


def test_a_config_that_does_not_parse_is_shown_with_the_reason(tmp_path):
    path = tmp_path / 'broken.py'
    path.write_text('model = dict(\n')
    assert 'does not parse: SyntaxError' in error_of('train', str(path))


def test_a_part_of_a_config_is_no_config():
    assert 'describes no model' in error_of('train', 'configs/_base_/default_runtime.py')


def test_an_unknown_method_is_answered_with_the_known_ones(data, tmp_path):
    options = main_options(data) | {'model.backbone.method.type': 'Nonsense'}
    text = error_of('train', MAIN, '--work-dir', str(tmp_path), *words(options))
    assert "Unknown method 'Nonsense'; known methods: Mona" in text


def test_an_unknown_host_is_named(data, tmp_path):
    path = tmp_path / 'resnet.py'
    resnet = "dict(_delete_=True, type='ResNet', depth=18)"
    path.write_text(f"_base_ = '{Path(MAIN).resolve()}'\nmodel = dict(backbone=dict(backbone={resnet}))\n")
    options = {k: v for k, v in main_options(data).items() if not k.startswith('model.backbone.backbone.')}
    text = error_of('train', str(path), '--work-dir', str(tmp_path / 'work'), *words(options))
    assert 'No host describes mmdet.models.backbones.resnet.ResNet' in text


def test_a_name_that_mmpeft_lacks_is_told(data, tmp_path):
    options = main_options(data) | {'model.backbone.type': 'mmpeft.AdaptBackbone'}
    assert 'AdaptBackbone, which mmpeft does not have' in error_of(
        'train', MAIN, '--work-dir', str(tmp_path), *words(options)
    )


def test_missing_data_is_answered_with_the_expected_layout():
    text = error_of('train', MAIN)
    assert 'data/coco/annotations/instances_train2017.json, data/coco/train2017/' in text
    assert 'CocoDataset expects in data/coco/: annotations/instances_train2017.json, train2017/.' in text
    assert text.endswith('--cfg-options train_dataloader.dataset.data_root=FOLDER.')


def test_missing_data_is_found_inside_wrappers_and_evaluators(data):
    gone = dict(type='XMLDataset', data_root='gone', ann_file='a.txt', data_prefix=dict(sub_data_root='VOC2007/'))
    here = dict(type='CocoDataset', data_root=str(data), ann_file='annotations/train.json')
    joined = dict(type='RepeatDataset', dataset=dict(type='ConcatDataset', datasets=[here, gone]))
    with pytest.raises(
        UserError, match=r'gone/a.txt, gone/VOC2007/.*train_dataloader.dataset.dataset.datasets.1.data_root'
    ):
        check_data(Config(dict(train_dataloader=dict(dataset=joined))), 'train')
    with pytest.raises(UserError, match='val_evaluator: no file gone.json'):
        check_data(Config(dict(val_dataloader=dict(dataset=here), val_evaluator=[dict(ann_file='gone.json')])), 'val')


@pytest.mark.skipif(torch.cuda.is_available(), reason='needs a machine without a GPU')
def test_mixed_precision_without_a_gpu_is_refused(data):
    assert 'needs a GPU' in error_of('train', MAIN, '--amp', *words(main_options(data)))


def test_an_option_that_nothing_reads_gets_a_warning_with_the_right_key():
    with pytest.warns(UserWarning, match='data_root changes nothing.* mean train_dataloader.dataset.data_root'):
        read_config(MAIN, {'data_root': 'elsewhere'})


def test_an_option_that_does_not_fit_is_refused():
    assert 'Index 7 exceeds' in error_of('train', MAIN, *words({'model.roi_head.bbox_head.7.num_classes': 3}))


def test_an_option_without_a_value_is_a_usage_error(capsys):
    with pytest.raises(SystemExit, match='2'):
        tool('train').main([MAIN, '--cfg-options', 'word'])
    assert "takes key=value pairs, got 'word'" in capsys.readouterr().err


def test_weights_that_cannot_be_downloaded_are_answered_with_the_place_for_them(data, tmp_path, monkeypatch):
    def unreachable(*_, **__):
        raise URLError('no network')

    monkeypatch.setattr(torch.hub, 'download_url_to_file', unreachable)
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    url = read_config(MAIN).model.backbone.backbone.init_cfg.checkpoint
    options = main_options(data)
    del options['model.backbone.backbone.init_cfg']
    text = error_of('train', MAIN, '--work-dir', str(tmp_path / 'work'), *words(options))
    assert f'Cannot download {url} (<urlopen error no network>)' in text
    assert f'Put the file at {tmp_path}/hub/checkpoints/swin_base_patch4_window7_224_22k.pth' in text
    assert text.endswith('--cfg-options model.backbone.backbone.init_cfg.checkpoint=FILE.')


def test_a_bug_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError), one_line_errors():
        1 / 0  # noqa: B018
    with pytest.raises(AttributeError) as python_error:
        run._scale_lr(None)
    assert explain(python_error.value) is None


def test_a_hook_error_that_mmengine_raises_anew_is_dug_out():
    try:
        try:
            raise UserError('the cause')
        except UserError as error:
            raise TypeError(f'{error} in some hook') from None
    except TypeError as error:
        assert explain(error) == 'the cause'


def test_a_cause_that_was_never_raised_or_is_the_error_itself_is_a_bug_like_others():
    never, itself = KeyError('x'), KeyError('y')
    never.__cause__, itself.__cause__ = ValueError('made and not raised'), itself
    assert explain(never) is None and explain(itself) is None
