import subprocess
import sys

import pytest
from mmengine.registry import DATASETS, init_default_scope


@pytest.fixture
def star():
    init_default_scope('mmrotate')
    return DATASETS.get('mmpeft.STARDataset')


def test_star_has_48_classes_of_which_4_and_44_are_round(star):
    classes = star.METAINFO['classes']
    assert len(classes) == len(set(classes)) == 48
    assert (classes[0], classes[4], classes[44], classes[47]) == ('ship', 'tank', 'roundabout', 'containment_vessel')


def test_every_class_of_star_has_its_own_colour(star):
    assert len(set(star.METAINFO['palette'])) == 48


def test_star_reads_labels_of_png_images_in_the_layout_of_dota(star, tmp_path):
    (tmp_path / 'annfiles').mkdir()
    (tmp_path / 'annfiles/0001__1024__0___0.txt').write_text('1 2 5 2 5 8 1 8 tank 0\n1 1 9 1 9 9 1 9 stadium 1\n')
    data = star(data_root=str(tmp_path), ann_file='annfiles', data_prefix=dict(img_path='images'), pipeline=[])
    (info,) = (data.get_data_info(i) for i in range(len(data)))
    assert info['img_path'] == f'{tmp_path}/images/0001__1024__0___0.png'
    assert [instance['bbox_label'] for instance in info['instances']] == [4, 46]
    assert info['instances'][0]['bbox'] == [1, 2, 5, 2, 5, 8, 1, 8]


def test_importing_mmpeft_mm_and_the_other_data_sets_leaves_mmrotate_out():
    code = (
        'import sys, mmpeft.mm; from mmengine.registry import DATASETS; '
        "DATASETS.get('mmpeft.DigitsDataset'); print('mmrotate' in sys.modules); "
        "DATASETS.get('mmpeft.STARDataset'); print('mmrotate' in sys.modules)"
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert [word for word in done.stdout.split() if word in ('False', 'True')] == ['False', 'True']
