"""Configs in pure Python, whose types are classes and functions."""

import pytest
from mmengine.config import Config
from tiny_data import tool, write_data

from mmpeft.mm.checks import UserError, read_config

NEW = """
from mmcv.transforms import LoadImageFromFile
from mmengine.dataset import DefaultSampler
from mmengine.hooks import CheckpointHook
from mmengine.optim import OptimWrapper
from mmengine.runner import EpochBasedTrainLoop
from mmseg.datasets import BaseSegDataset
from mmseg.datasets.transforms import LoadAnnotations, PackSegInputs
from mmseg.models import EncoderDecoder, FCNHead, SegDataPreProcessor, SwinTransformer
from torch.optim import AdamW
from mmpeft.mm.backbone import build_adapted_backbone
from mmpeft.mm.hooks import MonaHook
from mmpeft.mm.optim import AdapterOptimWrapperConstructor

default_scope = None
swin = dict(type=SwinTransformer, embed_dims=8, depths=(1, 1, 1, 1), num_heads=(1, 1, 2, 2))
model = dict(
    type=EncoderDecoder, data_preprocessor=dict(type=SegDataPreProcessor, size=(64, 64)), backbone=swin,
    decode_head=dict(type=FCNHead, in_channels=64, channels=8, in_index=3, num_convs=1, num_classes=2))
pipeline = [dict(type=LoadImageFromFile), dict(type=LoadAnnotations), dict(type=PackSegInputs)]
dataset = dict(
    type=BaseSegDataset, data_root='{root}', data_prefix=dict(img_path='train', seg_map_path='labels'),
    metainfo=dict(classes=('ground', 'thing')), pipeline=pipeline)
train_dataloader = dict(
    batch_size=2, num_workers=0, sampler=dict(type=DefaultSampler, shuffle=True), dataset=dataset)
train_cfg = dict(type=EpochBasedTrainLoop, max_epochs=1)
optim_wrapper = dict(type=OptimWrapper, optimizer=dict(type=AdamW, lr=1e-4), constructor=AdapterOptimWrapperConstructor)
default_hooks = dict(checkpoint=dict(type=CheckpointHook, interval=1))
"""
HOOK = 'custom_hooks = [dict(type=MonaHook, bottleneck=4, allow_random_base=True)]\n'
WRAPPER = (
    "model['backbone'] = dict(type=build_adapted_backbone, method=dict(type='Mona', bottleneck=4), backbone=swin, "
    'allow_random_base=True)\n'
)


@pytest.fixture
def write(tmp_path):
    root = write_data(tmp_path / 'data')

    def write(more=''):
        path = tmp_path / 'new.py'
        path.write_text(NEW.replace('{root}', str(root)) + more)
        return str(path)

    return write


def test_names_take_the_place_of_classes_and_functions(write):
    cfg = read_config(write(HOOK + WRAPPER))
    assert cfg.default_scope == 'mmseg'
    assert [step.type for step in cfg.pipeline] == ['LoadImageFromFile', 'LoadAnnotations', 'PackSegInputs']
    assert (cfg.model.type, cfg.model.backbone.type) == ('EncoderDecoder', 'mmpeft.AdaptedBackbone')
    assert cfg.model.backbone.backbone.type == 'SwinTransformer' and cfg.custom_hooks[0].type == 'mmpeft.MonaHook'
    assert cfg.optim_wrapper.constructor == 'mmpeft.AdapterOptimWrapperConstructor'
    assert cfg.optim_wrapper.type == 'OptimWrapper' and cfg.optim_wrapper.optimizer.type == 'AdamW'


def test_a_name_has_a_scope_where_it_is_another_ones_in_the_default_scope(tmp_path):
    (tmp_path / 'a.py').write_text(
        'from mmcv.transforms import LoadAnnotations\nfrom mmseg.models import EncoderDecoder\n'
        "default_scope = 'mmseg'\nmodel = dict(type=EncoderDecoder)\nstep = dict(type=LoadAnnotations)\n"
    )
    assert read_config(str(tmp_path / 'a.py')).step.type == 'mmengine.LoadAnnotations'


def test_a_class_that_is_not_registered_stays(tmp_path):
    (tmp_path / 'a.py').write_text(
        'from decimal import Decimal\nfrom mmseg.models import EncoderDecoder\n'
        'model = dict(type=EncoderDecoder, decode_head=dict(type=Decimal))\n'
    )
    assert read_config(str(tmp_path / 'a.py')).model.decode_head.type.__name__ == 'Decimal'


def test_mixed_precision_knows_the_wrapper_by_its_class(write):
    with pytest.raises(SystemExit, match='Mixed precision .* needs a GPU'):
        tool('train').main([write(HOOK), '--amp'])


@pytest.mark.parametrize('how', [HOOK, WRAPPER], ids=['hook', 'wrapper'])
def test_training_dumps_a_config_of_names(write, tmp_path, how):
    tool('train').main([write(how), '--work-dir', str(tmp_path / 'work')])
    assert (tmp_path / 'work/epoch_1.pth').is_file()
    dumped = Config.fromfile(tmp_path / 'work/new.py')
    assert dumped.model.backbone.type == 'mmpeft.AdaptedBackbone' and dumped.model.decode_head.type == 'FCNHead'


def test_the_hook_on_a_wrapper_given_by_its_function_is_refused(write):
    with pytest.raises(SystemExit, match='remove the adapter hook or the wrapper'):
        tool('train').main([write(WRAPPER + HOOK)])


def test_a_config_without_a_scope_or_a_class_to_tell_it_is_refused(tmp_path):
    (tmp_path / 'a.py').write_text('from decimal import Decimal\nmodel = dict(type=Decimal)\n')
    with pytest.raises(UserError, match='sets no default_scope'):
        read_config(str(tmp_path / 'a.py'))
