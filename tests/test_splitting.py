"""Patches of DOTA and STAR against mmrotate's own splitter, and runs that are killed and started again."""

import importlib.util
import os
import subprocess
import sys
import time
from pathlib import Path
from threading import Lock
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from PIL import Image

from mmpeft.data.images import images_of_any_size
from mmpeft.data.patches import place_windows, scaled, shares_inside
from mmpeft.data.quads import read_quads
from mmpeft.data.splitting import GRAY, Cut, largest_image, memory, split_folders

SAMPLE = Path(os.environ.get('MMPEFT_DATA', 'nowhere')) / 'dota_sample'
SMALL = Cut(size=64, overlap=16)


@pytest.fixture(scope='module')
def theirs():
    """mmrotate's splitter, which is a script beside the package."""
    with images_of_any_size():
        path = Path(importlib.util.find_spec('mmrotate').origin).parent / '.mim/tools/data/dota/split/img_split.py'
        spec = importlib.util.spec_from_file_location('img_split', path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module


def split_by_mmrotate(theirs, images, labels, out, cut):
    pairs = scaled(cut.size, cut.overlap, cut.rates)
    for folder in ('images', 'annfiles'):
        (out / folder).mkdir(parents=True)
    progress, logger = SimpleNamespace(value=0), SimpleNamespace(info=lambda text: None)
    for name in sorted(os.listdir(images)):
        theirs.single_split(
            (theirs._load_dota_single(name, str(images), str(labels)), str(images)),
            [size for size, _ in pairs],
            [overlap for _, overlap in pairs],
            img_rate_thr=0.6,
            iof_thr=0.7,
            no_padding=cut.padding is None,
            padding_value=cut.padding,
            save_dir=str(out / 'images'),
            anno_dir=str(out / 'annfiles'),
            img_ext='.png',
            lock=Lock(),
            prog=progress,
            total=1,
            logger=logger,
        )


def files(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob('*') if p.is_file()}


def assert_equal_to_mmrotate(theirs, root, tmp_path, cut):
    images, labels = root / 'images', root / 'labelTxt'
    split_by_mmrotate(theirs, images, labels, tmp_path / 'theirs', cut)
    split_folders([(images, labels)], tmp_path / 'ours', cut)
    ours, expected = files(tmp_path / 'ours'), files(tmp_path / 'theirs')
    ours.pop('split.json')
    assert ours.keys() == expected.keys() and ours == expected
    return ours


def write_tree(root, sizes, objects=40, seed=0):
    """Images of noise with quadrilaterals anywhere, over the edges too, in whole and in broken numbers."""
    random = np.random.default_rng(seed)
    for folder in ('images', 'labelTxt'):
        (root / folder).mkdir(parents=True)
    for number, (width, height) in enumerate(sizes):
        picture = random.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), np.uint8)
        cv2.imwrite(
            str(root / f'images/P{number:04d}.png'), np.kron(picture, np.ones((8, 8, 1), np.uint8))[:height, :width]
        )
        lines = ['imagesource:GoogleEarth', 'gsd:0.25']
        for index in range(objects):
            centre = random.uniform([-5, -5], [width + 5, height + 5])
            angle = np.sort(random.uniform(0, 2 * np.pi, 4))
            corners = centre + random.uniform(2, 30) * np.stack([np.cos(angle), np.sin(angle)], axis=1)
            corners = corners.round() if index % 2 else corners.round(1)
            lines.append(
                f'{" ".join(f"{x:g}" for x in corners.ravel())} {["ship", "small-vehicle"][index % 2]} {index % 3 % 2}'
            )
        (root / f'labelTxt/P{number:04d}.txt').write_text('\n'.join(lines) + '\n')
    return root


@pytest.fixture
def tree(tmp_path):
    return write_tree(tmp_path / 'tree', [(150, 130), (40, 70), (64, 64), (20, 20)])


@pytest.mark.parametrize(
    'cut',
    [SMALL, Cut(64, 16, (0.5, 1.0, 1.5)), Cut(64, 16, padding=None), Cut(64, 0, padding=(1, 2, 3))],
    ids=['plain', 'multi-scale', 'no padding', 'other padding'],
)
def test_patches_and_labels_are_byte_equal_to_those_of_mmrotate(theirs, tree, tmp_path, cut):
    written = assert_equal_to_mmrotate(theirs, tree, tmp_path, cut)
    assert 'images/P0000__64__0___0.png' in written
    flags = {
        line.split()[-1]
        for name, text in written.items()
        if name.endswith('.txt')
        for line in text.decode().splitlines()
    }
    assert flags == {'0', '1', '2'}


@pytest.mark.parametrize('kind', ['jpg', 'tif', 'bmp', 'gray', 'alpha', '16 bit'])
def test_images_of_every_kind_are_read_as_by_mmrotate(theirs, tmp_path, kind):
    tree = write_tree(tmp_path / 'tree', [(100, 90)])
    picture = cv2.imread(str(tree / 'images/P0000.png'))
    if kind in ('jpg', 'tif', 'bmp'):
        (tree / 'images/P0000.png').rename(tree / 'images/unused')
        cv2.imwrite(str(tree / f'images/P0000.{kind}'), picture)
        (tree / 'images/unused').unlink()
    else:
        change = {'gray': picture[..., 0], 'alpha': np.dstack([picture, picture[..., 0]])}
        cv2.imwrite(str(tree / 'images/P0000.png'), change.get(kind, picture.astype(np.uint16) * 256))
    assert_equal_to_mmrotate(theirs, tree, tmp_path, SMALL)


@pytest.mark.skipif(not SAMPLE.is_dir(), reason='MMPEFT_DATA names no folder with dota_sample')
@pytest.mark.parametrize('cut', [Cut(), Cut(overlap=500, rates=(0.5, 1.0, 1.5)), Cut(256, 50)], ids=str)
def test_real_images_are_split_as_by_mmrotate(theirs, tmp_path, cut):
    assert_equal_to_mmrotate(theirs, SAMPLE, tmp_path, cut)


def test_windows_are_those_of_mmrotate_for_random_sizes(theirs):
    random = np.random.default_rng(0)
    for width, height in random.integers(1, 4000, (60, 2)).tolist() + [[27860, 31096]]:
        pairs = scaled(1024, 200, (0.5, 1.0, 1.5))
        expected = theirs.get_sliding_window(dict(width=width, height=height), *zip(*pairs, strict=True), 0.6)
        assert np.array_equal(place_windows(width, height, pairs), expected)


def test_shares_are_those_of_mmrotate_to_the_last_bit(theirs):
    random = np.random.default_rng(0)
    centres, windows = random.uniform(0, 500, (300, 1, 2)), place_windows(500, 400, [(128, 32)])
    angles = np.sort(random.uniform(0, 2 * np.pi, (300, 4)))
    quads = centres + random.uniform(1, 60, (300, 1, 1)) * np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    quads = quads.reshape(-1, 8).astype(np.float32)
    assert np.array_equal(shares_inside(quads, windows), theirs.bbox_overlaps_iof(quads, windows))


def test_an_image_without_objects_gives_empty_label_files(tree, tmp_path):
    (tree / 'labelTxt/P0002.txt').unlink()
    split_folders([(tree / 'images', tree / 'labelTxt')], tmp_path / 'out', SMALL)
    assert (tmp_path / 'out/annfiles/P0002__64__0___0.txt').read_text() == ''


def test_images_without_labels_are_split_too(tree, tmp_path):
    done = split_folders([(tree / 'images', None)], tmp_path / 'out', SMALL)
    assert done.objects == 0 and len(list((tmp_path / 'out/annfiles').iterdir())) == done.patches > 10


def test_sides_that_cross_are_no_error():
    bow = np.array([[0, 0, 10, 10, 10, 0, 0, 10]], np.float32)
    assert shares_inside(bow, np.array([[0, 0, 5, 20]])).shape == (1, 1)


def test_a_second_run_writes_nothing(tree, tmp_path):
    folders, out = [(tree / 'images', tree / 'labelTxt')], tmp_path / 'out'
    split_folders(folders, out, SMALL)
    before = {p: p.stat().st_mtime_ns for p in out.rglob('*') if p.is_file()}
    again = split_folders(folders, out, SMALL)
    assert again.kept == again.patches == (len(before) - 1) / 2
    assert before == {p: p.stat().st_mtime_ns for p in out.rglob('*') if p.is_file()}


@pytest.mark.parametrize(
    'damage',
    [
        lambda out: (out / 'images/P0000__64__0___0.png').unlink(),
        lambda out: (out / 'images/P0000__64__0___0.png').write_bytes(b'\x89PNG cut off'),
        lambda out: (out / 'images/P0000__64__0___0.png').write_bytes(b''),
        lambda out: (out / 'annfiles/P0000__64__0___0.txt').unlink(),
        lambda out: (out / 'annfiles/P0000__64__0___0.txt').write_text('1 2 3'),
        lambda out: (out / 'images/.P0000__64__0___0.png.4242').write_bytes(b'left by a killed process'),
    ],
    ids=['no image', 'half an image', 'empty image', 'no labels', 'half the labels', 'leftover'],
)
def test_what_a_kill_left_undone_is_done_by_the_next_run(tree, tmp_path, damage):
    folders, out = [(tree / 'images', tree / 'labelTxt')], tmp_path / 'out'
    split_folders(folders, out, SMALL)
    whole = files(out)
    damage(out)
    assert files(out) != whole
    split_folders(folders, out, SMALL)
    assert files(out) == whole


def test_a_run_that_is_killed_goes_on_and_ends_with_the_same_files(tmp_path):
    tree = write_tree(tmp_path / 'tree', [(300, 300)] * 4)
    folders = [(tree / 'images', tree / 'labelTxt')]
    split_folders(folders, tmp_path / 'whole', SMALL)
    code = (
        'import sys; from pathlib import Path; from mmpeft.data.splitting import *; root = Path(sys.argv[1]); '
        "split_folders([(root / 'tree/images', root / 'tree/labelTxt')], root / 'out', Cut(64, 16), jobs=1)"
    )
    process = subprocess.Popen([sys.executable, '-c', code, str(tmp_path)], stderr=subprocess.DEVNULL)
    while process.poll() is None and not list((tmp_path / 'out').glob('images/P0001*')):
        time.sleep(0.002)
    process.kill()
    process.wait()
    written = files(tmp_path / 'out')
    assert 'split.json' in written and len(written) < len(files(tmp_path / 'whole'))
    assert split_folders(folders, tmp_path / 'out', SMALL).kept > 0
    assert files(tmp_path / 'out') == files(tmp_path / 'whole')


def test_other_settings_or_images_need_another_folder(tree, tmp_path):
    split_folders([(tree / 'images', None)], tmp_path / 'out', SMALL)
    with pytest.raises(ValueError, match='of other images or settings, told in .*split.json; name another'):
        split_folders([(tree / 'images', None)], tmp_path / 'out', Cut(32, 8))


def test_a_folder_with_other_files_is_refused_and_left_alone(tree, tmp_path):
    with pytest.raises(ValueError, match='exists and holds no patches'):
        split_folders([(tree / 'images', None)], tree, SMALL)
    assert sorted(p.name for p in tree.iterdir()) == ['images', 'labelTxt']


def test_an_unreadable_image_is_named_after_the_others_are_split(tree, tmp_path):
    path = tree / 'images/P0000.png'
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ValueError, match=r'patches of 3 images.*1 could not be read: .*P0000.png'):
        split_folders([(tree / 'images', tree / 'labelTxt')], tmp_path / 'out', SMALL)
    assert list((tmp_path / 'out/images').glob('P0001*'))


@pytest.mark.parametrize('damage', [lambda raw: raw[:-300], lambda raw: b'no image', lambda raw: raw[:20] + b'x' * 500])
@pytest.mark.parametrize('ending', ['jpg', 'png', 'tif'])
def test_no_patch_is_written_of_a_damaged_image(tree, tmp_path, damage, ending):
    (tmp_path / 'in').mkdir()
    path = tmp_path / f'in/a.{ending}'
    cv2.imwrite(str(path), cv2.imread(str(tree / 'images/P0000.png')))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises((ValueError, OSError), match=f'a.{ending}'):
        split_folders([(path.parent, None)], tmp_path / 'out', SMALL)
    assert list((tmp_path / 'out/images').iterdir()) == []


@pytest.mark.parametrize('result', [None, 'untouched', 'turned'])
def test_what_opencv_cannot_decode_is_refused(tree, tmp_path, monkeypatch, result):
    read = {
        None: lambda *_: None,
        'untouched': lambda path, image, flag: image,
        'turned': lambda p, i, f: i[::-1, ::-1].transpose(1, 0, 2),
    }
    monkeypatch.setattr(cv2, 'imread', read[result])
    with pytest.raises(
        ValueError,
        match='of 0 images.*4 could not be read' if result != 'turned' else 'could not be read: .*turned by EXIF',
    ):
        split_folders([(tree / 'images', None)], tmp_path / 'out', SMALL)


def test_an_image_is_decoded_into_the_only_array_that_holds_it(tree, tmp_path, monkeypatch):
    read, seen = cv2.imread, []
    monkeypatch.setattr(cv2, 'imread', lambda path, image, flag: seen.append(read(path, image, flag) is image) or image)
    split_folders([(tree / 'images', None)], tmp_path / 'out', SMALL)
    assert seen == [True] * 4


def test_an_image_above_two_gigabytes_is_decoded_the_plain_way_to_the_same_patches(tree, tmp_path, monkeypatch):
    folders = [(tree / 'images', tree / 'labelTxt')]
    split_folders(folders, tmp_path / 'once', SMALL)
    monkeypatch.setattr('mmpeft.data.splitting.ONCE', 100)
    monkeypatch.setattr('mmpeft.data.splitting._decode_into', None)
    split_folders(folders, tmp_path / 'twice', SMALL)
    assert files(tmp_path / 'once') == files(tmp_path / 'twice')


def test_the_memory_of_the_largest_image_of_star_is_told():
    assert memory(10000, 10000) == 300e6 and memory(27860, 31096) == 2 * 3 * 27860 * 31096


def test_an_unreadable_label_line_is_named(tree):
    (tree / 'labelTxt/P0000.txt').write_text('gsd:1\n1 2 3 4 5 6 7 ship 0\n')
    with pytest.raises(ValueError, match="P0000.txt, line 2: expected x1 y1 .* got '1 2 3 4 5 6 7 ship 0'"):
        read_quads(tree / 'labelTxt/P0000.txt')


def test_two_images_of_one_name_are_refused(tree, tmp_path):
    with pytest.raises(ValueError, match='have one name, and so would their patches'):
        split_folders([(tree / 'images', None)] * 2, tmp_path / 'out', SMALL)


def test_a_folder_without_images_is_refused(tree, tmp_path):
    with pytest.raises(ValueError, match='No images in .*labelTxt'):
        split_folders([(tree / 'labelTxt', None)], tmp_path / 'out', SMALL)


@pytest.mark.parametrize(
    'arguments, error',
    [
        ((100, 100, (1.0,)), 'cannot overlap by 100 px'),
        ((100, 20, (0.0,)), 'Rates must be above 0'),
        ((100, 20, (1.0, 1.0)), 'give windows of one size'),
        ((0, 0, (1.0,)), 'Windows of 0 px'),
    ],
)
def test_settings_that_cover_nothing_are_refused(arguments, error):
    with pytest.raises(ValueError, match=error):
        scaled(*arguments)


def test_the_largest_image_is_found_by_heads_alone(tree, monkeypatch):
    monkeypatch.setattr(cv2, 'imread', None)
    assert largest_image([(tree / 'images', None)]) == (150, 130)


def test_an_image_above_the_limit_of_pillow_is_split(tree, tmp_path, monkeypatch):
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 1000)
    assert split_folders([(tree / 'images', None)], tmp_path / 'out', SMALL).images == 4
    assert Image.MAX_IMAGE_PIXELS == 1000


def test_the_defaults_are_the_usual_ones_for_dota():
    assert Cut() == Cut(1024, 200, (1.0,), GRAY)
