import numpy as np
import pytest
from mmengine.registry import TRANSFORMS

from mmpeft.mm.checks import UserError, read_config
from mmpeft.mm.soups.corruptions import CORRUPTIONS, corrupt_validation

IMAGE = np.random.default_rng(0).integers(0, 255, (40, 50, 3)).astype(np.uint8)


def damaged(kind, path='a/1.jpg'):
    transform = TRANSFORMS.build(dict(type='mmpeft.Corrupt', kind=kind))
    return transform(dict(img=IMAGE.copy(), img_path=path))['img']


@pytest.mark.parametrize('kind', CORRUPTIONS)
def test_an_image_is_damaged_in_the_same_way_each_time_wherever_it_lies(kind):
    image = damaged(kind)
    assert image.shape == IMAGE.shape and image.dtype == np.uint8 and not np.array_equal(image, IMAGE)
    np.random.seed(1)
    assert np.array_equal(image, damaged(kind, path='b/1.jpg'))


def test_other_images_get_other_noise():
    assert not np.array_equal(damaged('noise'), damaged('noise', path='a/2.jpg'))


def test_unknown_damage_is_refused():
    with pytest.raises(ValueError, match='one of blur, noise, jpeg'):
        damaged('snow')


@pytest.mark.parametrize('config', ['mona_swin_coco', 'mona_swin_ade20k', 'mona_swin_dota_oriented-rcnn_train-val'])
def test_damage_comes_right_after_loading_in_validation_alone(config):
    cfg = read_config(f'configs/{config}.py')
    test = cfg.test_dataloader.dataset.pipeline
    corrupt_validation(cfg, 'jpeg')
    assert cfg.val_dataloader.dataset.pipeline == [test[0], dict(type='mmpeft.Corrupt', kind='jpeg'), *test[1:]]


def test_a_pipeline_that_loads_nothing_is_refused():
    cfg = read_config('configs/mona_swin_ade20k.py')
    cfg.val_dataloader.dataset.pipeline = cfg.val_dataloader.dataset.pipeline[1:]
    with pytest.raises(UserError, match='No LoadImageFromFile'):
        corrupt_validation(cfg, 'blur')
