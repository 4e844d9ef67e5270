import hashlib

import pytest
import torch
from ingredients import HELD, train, write_segmentor
from mmengine.config import Config
from mmengine.registry import DATASETS
from tiny_data import MAIN, main_options, write_data

from mmpeft.checkpoint import read_adapters
from mmpeft.mm.checks import UserError, read_config, register_library
from mmpeft.mm.running.holdout import hold_out
from mmpeft.mm.soups.heldout import check_no_leak, heldout_hash, image_names
from mmpeft.mm.weights.checkpoints import read_checkpoint


def held(config, **options):
    cfg = read_config(config)
    cfg.merge_from_dict(options)
    hold_out(cfg)
    return cfg


def test_validation_runs_on_the_held_out_split_with_its_own_pipeline_and_metric(tmp_path):
    cfg = held(str(write_segmentor(tmp_path)))
    register_library('mmseg')
    dataset = DATASETS.build({**cfg.val_dataloader.dataset, 'type': 'mmseg.BaseSegDataset', 'pipeline': []})
    assert image_names(dataset) == [*HELD] and dataset.test_mode
    assert cfg.val_dataloader.dataset.pipeline == cfg.test_dataloader.dataset.pipeline
    assert cfg.val_evaluator == cfg.test_evaluator and cfg.val_cfg.type == 'ValLoop'


def test_a_folder_or_some_of_its_images_can_be_held_out(tmp_path):
    config = str(write_segmentor(tmp_path))
    folder = dict(img_path='validation', seg_map_path='labels')
    dataset = held(config, heldout=dict(_delete_=True, data_prefix=folder, indices=[0, 2])).val_dataloader.dataset
    assert (dataset.data_prefix, dataset.indices) == (folder, [0, 2])
    with pytest.raises(UserError, match='heldout.data_prefix is .*which is trained on'):
        held(config, heldout=dict(_delete_=True, data_prefix=dict(img_path='train', seg_map_path='labels')))


def test_holding_out_twice_changes_nothing(tmp_path):
    cfg = held(str(write_segmentor(tmp_path)))
    text = cfg.pretty_text
    hold_out(cfg)
    assert cfg.pretty_text == text


def test_coco_scores_with_the_held_out_annotations_on_training_images(tmp_path):
    options = main_options(write_data(tmp_path / 'data')) | {'heldout.ann_file': 'held.json'}
    cfg = held(MAIN, **options)
    assert cfg.val_evaluator.ann_file == f'{tmp_path}/data/held.json'
    assert cfg.val_dataloader.dataset.data_prefix == cfg.train_dataloader.dataset.data_prefix
    assert cfg.test_evaluator.ann_file == options['test_evaluator.ann_file']


@pytest.mark.parametrize('config', ['configs/mona_swin_dota.py', 'configs/mona_swin_dota_oriented-rcnn_train-val.py'])
def test_labels_of_whole_dota_images_are_asked_for(config):
    with pytest.raises(UserError, match='heldout.evaluator.ann_dir=FOLDER'):
        held(config, **{'heldout.ann_file': 'held/annfiles/'})
    cfg = held(config, **{'heldout.ann_file': 'held/annfiles/', 'heldout.evaluator.ann_dir': 'whole'})
    assert cfg.val_evaluator.ann_dir == 'whole' and 'format_only' not in cfg.val_evaluator


def test_the_first_of_several_training_sets_is_the_one_of_which_images_are_held_out():
    cfg = held('configs/mona_swin_voc.py', heldout=dict(ann_file='held.txt'))
    assert cfg.val_dataloader.dataset.data_prefix == dict(sub_data_root='VOC2007/')
    assert cfg.val_dataloader.dataset.pipeline == cfg.test_dataloader.dataset.pipeline


@pytest.mark.parametrize('heldout', [dict(ann_file='rest.txt'), dict(data_root='elsewhere')])
def test_a_split_that_is_none_is_refused(heldout, tmp_path):
    config = str(write_segmentor(tmp_path, more=f'heldout = {heldout}'))
    with pytest.raises(UserError, match='mmpeft holdout'):
        held(config)


def test_training_on_a_held_out_image_is_refused(tmp_path):
    config = write_segmentor(tmp_path)
    with (tmp_path / 'data/rest.txt').open('a') as file:
        file.write('4\n')
    with pytest.raises(SystemExit, match='1 held-out images are in the training data, such as 4'):
        train(config, tmp_path / 'work')
    assert not list((tmp_path / 'work').glob('*.pth'))


def test_another_patch_of_a_held_out_image_is_a_leak():
    with pytest.raises(UserError, match='such as P1:'):
        check_no_leak(['P1__1024__0___0', 'P2__1024__0___0'], ['P1__1024__824___0'])
    check_no_leak(['P2__1024__0___0', 'a/1'], ['P1__1024__824___0', 'b/1'])


def test_the_hash_is_that_of_the_names_in_any_order():
    assert heldout_hash(['b', 'a']) == hashlib.sha256(b'a\nb').hexdigest()


def test_validating_elsewhere_than_on_the_held_out_split_is_refused_under_stock_tools(tmp_path):
    """A best checkpoint would be best on other images."""
    from mmengine.runner import Runner

    cfg = Config.fromfile(write_segmentor(tmp_path, more="custom_hooks = [dict(type='mmpeft.IngredientHook')]"))
    cfg.work_dir = str(tmp_path / 'work')
    with pytest.raises(RuntimeError, match='validation does not run on it'):
        Runner.from_cfg(cfg).train()


def test_files_of_a_run_hold_its_start_and_its_held_out_images_after_resuming_too(tmp_path):
    config, work = write_segmentor(tmp_path), tmp_path / 'work'
    train(config, tmp_path / 'start')
    start = tmp_path / 'start/adapters_last.safetensors'
    facts = dict(start=hashlib.sha256(start.read_bytes()).hexdigest(), heldout=heldout_hash(HELD))
    more = ['--cfg-options', f'load_from={start}']
    train(config, work, *more)
    train(config, work, '--resume', *more, 'train_cfg.max_iters=4')
    assert read_adapters(start).info.start is None
    info = read_adapters(work / 'adapters_last.safetensors').info
    assert dict(start=info.start, heldout=info.heldout) == facts and info.base == 'base.pth'
    for number in (2, 4):
        assert read_checkpoint(work / f'iter_{number}.pth')['meta']['mmpeft'] == facts
    (tmp_path / 'data/held.txt').write_text('1\n')
    with pytest.raises(SystemExit, match='The run held out other images before'):
        train(config, work, '--resume', '--cfg-options', 'train_cfg.max_iters=6')


def test_a_file_that_leaves_values_to_the_seed_is_no_start(tmp_path):
    config = write_segmentor(tmp_path)
    torch.save(
        dict(state_dict={f'backbone.{k}': v for k, v in torch.load(tmp_path / 'base.pth').items()}), tmp_path / 'a.pth'
    )
    train(config, tmp_path / 'work', '--cfg-options', f'load_from={tmp_path}/a.pth')
    assert read_adapters(tmp_path / 'work/adapters_last.safetensors').info.start is None
