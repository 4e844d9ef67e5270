"""Similarity of features by block: its values, and the tool on models of each library."""

import copy
import csv

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from shrunk import config, shrink
from test_tta import write_ade20k
from tiny import BACKBONES, image, swin
from tiny_data import MAIN, ROTATED, main_options, tool, write_data

import mmpeft
from mmpeft.mm.checks import UserError, register_library
from mmpeft.mm.reports.features import _alike, compare
from mmpeft.mm.reports.similarity import similarity


@pytest.mark.parametrize('host', BACKBONES)
def test_features_differ_from_the_first_block_on_that_an_adapter_changes(host):
    torch.manual_seed(0)
    base = BACKBONES[host]()
    changed = copy.deepcopy(base)
    last = compare(dict(a=base, b=base), [image(40, 48)]).blocks[-1]
    mmpeft.inject(changed, dict(type='SSF', blocks=last.replace('.', r'\.')))
    found = compare(dict(pretrained=base, tuned=changed), [image(40, 48)])
    *before, after = found.values['pretrained', 'tuned']
    assert before == pytest.approx([1] * len(before)) and 0.9 < after < 0.99999


def test_the_channels_of_each_position_are_compared_and_their_length_is_nothing():
    x, lengths = torch.randn(2, 5, 8), 1 + torch.rand(2, 5, 1)
    assert _alike('a', x, 'b', lengths * x).item() == pytest.approx(1)
    signs = torch.tensor([1.0, 1, 1, 1, -1]).reshape(1, 5, 1)
    assert _alike('a', x, 'b', signs * x).item() == pytest.approx(3 / 5)


def test_prompts_are_left_out_and_images_are_averaged():
    torch.manual_seed(0)
    base = BACKBONES['mmseg ViT']()
    prompted = copy.deepcopy(base)
    mmpeft.inject(prompted, dict(type='VPT', num_prompts=3, deep=True))
    backbones, images = dict(a=base, b=prompted), [image(40, 48), image(32, 32)]
    one, two, both = (compare(backbones, chosen).values['a', 'b'] for chosen in (images[:1], images[1:], images))
    assert both == pytest.approx([(x + y) / 2 for x, y in zip(one, two, strict=True)])
    assert all(0 < value < 0.9999 for value in both)


def test_every_model_is_compared_with_the_first_and_with_each_other():
    pairs = compare(dict.fromkeys('abc', swin()), [image()]).values
    assert [*pairs] == [('a', 'b'), ('a', 'c'), ('b', 'c')]


def test_models_on_other_backbones_are_refused():
    with pytest.raises(UserError, match='a has 5 blocks and b 3'):
        compare(dict(a=swin(), b=BACKBONES['mmseg ViT']()), [image()])
    with pytest.raises(UserError, match='The features of a are .*8.* and those of b .*16'):
        compare(dict(a=swin(), b=swin(embed_dims=16)), [image()])


def detector(folder):
    cfg = Config.fromfile(MAIN)
    cfg.merge_from_dict(main_options(write_data(folder / 'data')) | {'model.backbone.backbone.convert_weights': False})
    return cfg


def segmentor(folder, name='cvpt_vit_ade20k'):
    cfg = copy.deepcopy(config(name))
    shrink(cfg)
    write_ade20k(folder / 'data')
    cfg.test_dataloader.dataset.data_root = str(folder / 'data')
    cfg.test_dataloader.dataset.pipeline[1].scale = (96, 64)
    return cfg


def rotated(folder):
    root = write_data(folder / 'data')
    (folder / 'rotated.py').write_text(ROTATED.replace('{root}', str(root)))
    cfg = Config.fromfile(folder / 'rotated.py')
    cfg.test_dataloader.dataset.update(cfg.train_dataloader.dataset, test_mode=True)
    cfg.test_dataloader.dataset.pipeline[3].scale = (64, 64)
    return cfg


def ready(make, folder) -> str:
    """A config with a base, and a checkpoint of its model: what the tool takes."""
    folder.mkdir()
    cfg = make(folder)
    register_library(cfg.default_scope)
    init_default_scope(cfg.default_scope)
    stock = cfg.model.backbone.backbone
    weights = MODELS.build(stock).state_dict()
    torch.save({'state_dict': weights | {f'backbone.{key}': value for key, value in weights.items()}}, folder / 'b.pth')
    stock.init_cfg = dict(type='Pretrained', checkpoint=str(folder / 'b.pth'))
    model = MODELS.build(cfg.model)
    model.backbone.init_weights()
    torch.save(dict(state_dict=model.state_dict()), folder / 'tuned.pth')
    cfg.dump(folder / 'tuned.py')
    return f'{folder}/tuned.py={folder}/tuned.pth'


@pytest.mark.parametrize('make', [detector, segmentor, rotated])
def test_the_tool_writes_a_table_and_a_picture(make, tmp_path, capsys):
    torch.manual_seed(0)
    tuned, out = ready(make, tmp_path / 'run'), tmp_path / 'out'
    capsys.readouterr()
    tool('report').main(['--similarity', tuned, '--images', '2', '--out', str(out)])
    assert (out / 'similarity.md').read_text() in capsys.readouterr().out
    head, *rows = csv.reader((out / 'similarity.csv').open())
    assert head == ['block', 'pretrained / tuned']
    values = [float(row[1]) for row in rows]
    assert len(values) == (24 if make is segmentor else 4) and all(0.5 < value < 1 for value in values)
    assert (out / 'similarity.png').stat().st_size > 10_000
    with pytest.raises(SystemExit, match='holds files already'):
        tool('report').main(['--similarity', tuned, '--out', str(out)])


def test_a_base_without_weights_other_colours_and_what_is_no_model_are_refused(tmp_path):
    tuned = ready(detector, tmp_path / 'run')
    cfg = Config.fromfile(tmp_path / 'run/tuned.py')
    cfg.model.backbone.backbone.init_cfg = None
    cfg.dump(tmp_path / 'random.py')
    with pytest.raises(UserError, match='names no pretrained weights for patch_embed.norm.bias and'):
        similarity([f'{tmp_path}/random.py={tmp_path}/run/tuned.pth'])
    cfg.model.data_preprocessor.mean = [0, 0, 0]
    cfg.dump(tmp_path / 'dark.py')
    with pytest.raises(UserError, match='given other colours'):
        similarity([tuned, f'{tmp_path}/dark.py={tmp_path}/run/tuned.pth'])
    with pytest.raises(UserError, match='is no work dir. Give one, or CONFIG=CHECKPOINT'):
        similarity([MAIN])
    with pytest.raises(UserError, match='holds no checkpoint and no adapters_last.safetensors'):
        similarity([str(tmp_path)])
    with pytest.raises(UserError, match='There is no image'):
        similarity([tuned], images=0)
