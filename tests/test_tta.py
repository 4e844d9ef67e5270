"""Test-time augmentation: what the test data become, and that scores are those of the same truth."""

import copy

import cv2
import numpy as np
import pytest
import torch
from mmcv.transforms import Compose
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from shrunk import TOP, config, listed, shrink

from mmpeft.mm.checks import UserError, register_library
from mmpeft.mm.running import run
from mmpeft.mm.running.tta import use_tta

ADE20K = [name for name in TOP if name.split('_')[2] == 'ade20k']


def augmented(name: str) -> Config:
    cfg = copy.deepcopy(config(name))
    register_library(cfg.default_scope)
    init_default_scope(cfg.default_scope)
    use_tta(cfg)
    return cfg


@pytest.mark.parametrize('name', ADE20K)
def test_every_config_of_ade20k_has_scales_and_mirror_images(name):
    cfg, plain = augmented(name), config(name)
    assert cfg.model == dict(type='SegTTAModel', module=plain.model)
    assert cfg.test_dataloader.dataset.pipeline == config(ADE20K[0]).tta_pipeline


def test_views_on_ade20k_are_six_scales_of_the_test_size_each_with_its_mirror_image(tmp_path):
    cv2.imwrite(f'{tmp_path}/image.jpg', np.zeros((64, 96, 3), np.uint8))
    cv2.imwrite(f'{tmp_path}/labels.png', np.ones((64, 96), np.uint8))
    views = Compose(augmented(ADE20K[0]).test_dataloader.dataset.pipeline)(
        dict(img_path=f'{tmp_path}/image.jpg', seg_map_path=f'{tmp_path}/labels.png', seg_fields=[], label_map=None)
        | dict(reduce_zero_label=True)
    )
    metas = [sample.metainfo for sample in views['data_samples']]
    sides = [256, 384, 512, 640, 768, 896]
    assert [(meta['img_shape'][0], bool(meta['flip'])) for meta in metas] == [(s, f) for s in sides for f in (0, 1)]
    assert {tuple(sample.gt_sem_seg.data.shape) for sample in views['data_samples']} == {(1, 64, 96)}


def write_ade20k(root) -> None:
    """One image with its labels, half of it the first class and half the second."""
    for folder, picture in dict(images=np.zeros((64, 96, 3)), annotations=np.ones((64, 96))).items():
        (root / folder / 'validation').mkdir(parents=True)
        picture[:, 48:] += 1
        suffix = 'jpg' if folder == 'images' else 'png'
        cv2.imwrite(f'{root}/{folder}/validation/a.{suffix}', picture.astype(np.uint8))


@pytest.mark.parametrize('name', ['mona_swin_ade20k', 'cvpt_vit_ade20k'])
def test_a_segmentor_is_tested_in_several_scales_and_flipped(name, tmp_path):
    cfg = copy.deepcopy(config(name))
    shrink(cfg)
    for head in (cfg.model.decode_head, *listed(cfg.model.auxiliary_head)):
        head.channels = 8
    write_ade20k(tmp_path)
    cfg.test_dataloader.update(num_workers=0, persistent_workers=False)
    cfg.test_dataloader.dataset.data_root = str(tmp_path)
    for transform in cfg.tta_pipeline[1].transforms[0]:
        transform.scale = (2048 // 8, transform.scale[1] // 8)
    cfg.dump(tmp_path / 'tiny.py')
    register_library('mmseg')
    init_default_scope('mmseg')
    torch.save(dict(state_dict=MODELS.build(cfg.model).state_dict()), tmp_path / 'weights.pth')
    metrics = run.test(f'{tmp_path}/tiny.py', f'{tmp_path}/weights.pth', work_dir=f'{tmp_path}/work', tta=True)
    assert 0 <= metrics['mIoU'] <= 100


def test_the_first_view_of_boxes_has_the_truth_of_the_image_as_it_is(tmp_path):
    """Metrics of Pascal VOC read it there."""
    cv2.imwrite(f'{tmp_path}/image.jpg', np.zeros((64, 96, 3), np.uint8))
    box = dict(bbox=[5.0, 10.0, 20.0, 30.0], bbox_label=0, ignore_flag=0)
    pipeline = Compose(augmented('mona_swin_voc').test_dataloader.dataset.pipeline)
    first, second = pipeline(dict(img_path=f'{tmp_path}/image.jpg', img_id='a', instances=[box]))['data_samples']
    assert not first.flip and second.flip
    assert first.gt_instances.bboxes.tensor.tolist() == [box['bbox']]


def test_a_model_that_finds_masks_is_refused_whatever_is_scored():
    cfg = copy.deepcopy(config('mona_swin_coco'))
    with pytest.raises(UserError, match='finds masks. Leave the masks out with .*mask_head=None'):
        use_tta(cfg)
    cfg.test_evaluator.metric = 'bbox'
    with pytest.raises(UserError, match='finds masks. Leave the masks out with .*mask_head=None'):
        use_tta(cfg)
    cfg.model = dict(type='SOLO', mask_head=dict(type='SOLOHead'))
    with pytest.raises(UserError, match=r'finds masks\.$'):
        use_tta(cfg)


@pytest.mark.parametrize('name', ['mona_swin_dota', 'mona_swin_star'])
def test_rotated_boxes_are_refused(name):
    with pytest.raises(UserError, match='for rotated boxes there is none'):
        augmented(name)
