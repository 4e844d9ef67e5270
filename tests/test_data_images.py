"""What the check makes of image files, and what mmcv does."""

import cv2
import mmcv
import numpy as np
import pytest
from PIL import Image

from mmpeft.data.images import ORIENTATION, damage, image_size, look_at


@pytest.mark.parametrize('ending', ['jpg', 'png', 'tif', 'bmp'])
@pytest.mark.parametrize('mode', ['RGB', 'L'])
def test_whole_images_are_whole_and_halves_are_not(tmp_path, ending, mode):
    path = tmp_path / f'image.{ending}'
    Image.effect_noise((80, 80), 90).convert(mode).save(path)
    assert damage(path) is None and damage(path, decode=True) is None
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert damage(path).startswith('cannot be read')


def test_whole_images_of_kinds_with_an_end_mark_are_not_decoded(tmp_path, monkeypatch):
    for ending in ('jpg', 'png', 'tif'):
        Image.effect_noise((80, 80), 90).save(tmp_path / f'image.{ending}')
    monkeypatch.setattr(Image.Image, 'load', lambda self: 1 / 0)
    monkeypatch.setattr(cv2, 'imdecode', lambda *_: 1 / 0)
    assert [damage(tmp_path / f'image.{ending}') for ending in ('jpg', 'png', 'tif')] == [None] * 3


def test_a_photograph_with_bytes_after_its_end_is_whole(tmp_path):
    path = tmp_path / 'image.jpg'
    Image.effect_noise((80, 80), 90).save(path)
    path.write_bytes(path.read_bytes() + bytes(5000))
    assert damage(path) is None


@pytest.mark.parametrize('ending', ['jpg', 'png', 'tif', 'webp', 'bmp'])
@pytest.mark.parametrize('orientation', range(1, 9))
def test_sizes_are_those_that_mmcv_reads_of_images_that_exif_turns(tmp_path, ending, orientation):
    path, exif = tmp_path / f'image.{ending}', Image.Exif()
    exif[ORIENTATION] = orientation
    Image.effect_noise((80, 40), 90).convert('RGB').save(path, exif=exif)
    read = mmcv.imread(str(path)).shape[1::-1]
    assert look_at(path).size == look_at(path, decode=True).size == read
    assert look_at(path).turned == (orientation > 1 and ending != 'bmp')
    as_stored = mmcv.imread(str(path), 'color_ignore_orientation').shape[1::-1]
    assert look_at(path, turned=False, decode=True).size == as_stored
    if ending != 'tif':
        assert look_at(path, turned=False).size == as_stored


def test_exif_behind_the_pixels_of_a_png_turns_it_too(tmp_path):
    path, exif = tmp_path / 'image.png', Image.Exif()
    exif[ORIENTATION] = 6
    Image.new('RGB', (80, 40)).save(path, exif=exif)
    content = path.read_bytes()
    start = content.index(b'eXIf') - 4
    chunk = content[start : content.index(b'IDAT') - 4]
    path.write_bytes(content.replace(chunk, b'')[:-12] + chunk + content[-12:])
    assert look_at(path).size == mmcv.imread(str(path)).shape[1::-1] == (40, 80)


def test_what_mmcv_decodes_is_read_whatever_pillow_says_and_the_other_way_round(tmp_path, monkeypatch):
    picture, floats = tmp_path / 'a.png', tmp_path / 'b.tif'
    Image.effect_noise((80, 40), 90).save(picture)
    Image.fromarray(np.ones((8, 8), np.float32)).save(floats)
    assert 'OpenCV, by which mmcv reads images, decodes nothing of it' in damage(floats)
    monkeypatch.setattr(Image, 'open', lambda *_: 1 / 0)
    assert damage(picture) is None and image_size(picture) == (80, 40)


@pytest.mark.parametrize('ending, pixels', [('png', (8, 8)), ('png', (8, 8, 3)), ('tif', (8, 8)), ('tif', (8, 8, 3))])
def test_images_of_16_bits_are_noted(tmp_path, ending, pixels):
    for kind in (np.uint8, np.uint16):
        cv2.imwrite(str(tmp_path / f'a.{ending}'), np.full(pixels, 200, kind))
        assert look_at(tmp_path / f'a.{ending}').deep == (kind is np.uint16)
