import copy
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from tiny_data import MAIN, TINY_SWIN

import mmpeft

CONFIGS = sorted(map(str, Path('configs').rglob('*.py')))
WHOLE = [path for path in CONFIGS if '_base_' not in Path(path).parts]
PUBLISHED = 'https://github.com/SwinTransformer/storage/releases/download/v1.0.0/'


@pytest.fixture(scope='module')
def main():
    return Config.fromfile(MAIN)


@pytest.mark.parametrize('path', CONFIGS)
def test_every_config_parses_and_survives_being_dumped(path):
    cfg = Config.fromfile(path)
    assert Config.fromstring(cfg.pretty_text, '.py').to_dict() == cfg.to_dict()


@pytest.mark.parametrize('path', WHOLE)
def test_every_whole_config_opens_with_what_it_trains_and_the_command(path):
    header = Path(path).read_text().split('\n\n')[0].partition('_base_')[0]
    assert header.startswith('# ') and f'tools/train.py {path}' in header


def test_main_backbone_is_mona_in_swin_b_with_22k_weights(main):
    backbone = main.model.backbone
    assert backbone.type == 'mmpeft.AdaptedBackbone' and backbone.method == dict(type='Mona')
    swin = backbone.backbone
    assert (swin.type, swin.embed_dims, swin.window_size, swin.drop_path_rate) == ('SwinTransformer', 128, 7, 0.3)
    assert swin.depths == [2, 2, 18, 2] and swin.num_heads == [4, 8, 16, 32]
    assert swin.out_indices == (0, 1, 2, 3) and swin.convert_weights
    assert swin.init_cfg == dict(type='Pretrained', checkpoint=f'{PUBLISHED}swin_base_patch4_window7_224_22k.pth')


def test_main_detector_is_the_published_cascade(main):
    model = main.model
    assert model.type == 'CascadeRCNN' and model.neck.out_channels == 256 and model.roi_head.num_stages == 3
    assert [head.type for head in model.roi_head.bbox_head] == ['Shared4Conv1FCBBoxHead'] * 3
    for head in model.roi_head.bbox_head:
        assert head.norm_cfg.type == 'SyncBN' and head.reg_decoded_bbox and not head.reg_class_agnostic
        assert head.loss_bbox == dict(type='GIoULoss', loss_weight=10.0) and head.num_classes == 80
    stds = [head.bbox_coder.target_stds for head in model.roi_head.bbox_head]
    assert stds == [[0.1, 0.1, 0.2, 0.2], [0.05, 0.05, 0.1, 0.1], [0.033, 0.033, 0.067, 0.067]]
    assert model.roi_head.mask_head.type == 'FCNMaskHead' and model.roi_head.mask_head.num_convs == 4
    assert [stage.assigner.pos_iou_thr for stage in model.train_cfg.rcnn] == [0.5, 0.6, 0.7]


def test_main_optimizer_is_adamw_without_decay_for_positions_and_norms(main):
    wrapper = main.optim_wrapper
    assert wrapper.type == 'OptimWrapper' and wrapper.constructor == 'mmpeft.AdapterOptimWrapperConstructor'
    assert wrapper.optimizer == dict(type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05)
    keys = wrapper.paramwise_cfg.custom_keys
    assert set(keys) == {'absolute_pos_embed', 'relative_position_bias_table', 'norm'}
    assert all(rule == dict(decay_mult=0.0) for rule in keys.values())
    assert 'clip_grad' not in wrapper


def test_main_schedule_is_36_epochs_for_16_images_with_steps_at_27_and_33(main):
    warmup, steps = main.param_scheduler
    assert warmup == dict(type='LinearLR', start_factor=1e-3, by_epoch=False, begin=0, end=500)
    assert steps == dict(type='MultiStepLR', begin=0, end=36, by_epoch=True, milestones=[27, 33], gamma=0.1)
    assert main.train_cfg.max_epochs == 36
    assert main.auto_scale_lr.base_batch_size == 16 == 8 * main.train_dataloader.batch_size


def test_main_augmentation_is_multi_scale_with_crops(main):
    *_, flip, choice, _ = main.train_dataloader.dataset.pipeline
    assert flip == dict(type='RandomFlip', prob=0.5)
    (resize,), (small, crop, again) = choice.transforms
    assert resize.scales == [(s, 1333) for s in (480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800)] == again.scales
    assert small.scales == [(400, 1333), (500, 1333), (600, 1333)]
    assert crop.crop_size == (384, 600) and crop.crop_type == 'absolute_range' and crop.allow_negative_crop
    assert main.test_dataloader.dataset.pipeline[1] == dict(type='Resize', scale=(1333, 800), keep_ratio=True)


def test_main_model_builds_with_a_small_swin_and_trains_adapters_neck_and_heads(main):
    init_default_scope('mmdet')
    cfg = copy.deepcopy(main)
    cfg.model.backbone.backbone.update(TINY_SWIN)
    cfg.model.neck.in_channels = [8, 16, 32, 64]
    model = MODELS.build(cfg.model)
    trainable = {name for name, p in model.backbone.named_parameters() if p.requires_grad}
    assert trainable == set(mmpeft.trained_names(model.backbone)) and all(map(mmpeft.is_adapter, trainable))
    frozen = [name for name, p in model.named_parameters() if not p.requires_grad]
    assert frozen and all(name.startswith('backbone.') for name in frozen)
    outputs = model.backbone.eval() or model.backbone(torch.randn(1, 3, 64, 64))
    assert [out.shape[1] for out in outputs] == [8, 16, 32, 64]
