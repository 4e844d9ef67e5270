"""The data set of STAR, satellite images with rotated boxes of 48 classes; it needs mmrotate."""

from colorsys import hsv_to_rgb

from mmrotate.datasets import DOTADataset

from mmpeft.data.trees import STAR
from mmpeft.registry import DATASETS

CLASSES = tuple(STAR.split('|'))


def _colour(index: int) -> tuple[int, ...]:
    """One of many colours: the golden ratio keeps neighbours apart, and brightness tells the cycles apart."""
    return tuple(round(255 * part) for part in hsv_to_rgb(index * 0.618034 % 1, 0.85, 1 - 0.2 * (index % 3)))


@DATASETS.register_module()
class STARDataset(DOTADataset):
    """STAR in the layout of DOTA: ``.png`` images and one ``.txt`` of quadrilaterals each, whole or in patches.

    The round classes, which H2RBox-v2 takes as squares, are 4 (tank) and 44 (roundabout).

    Source: Li et al. 2024, arXiv:2406.09410.
    """

    METAINFO = {'classes': CLASSES, 'palette': [_colour(index) for index in range(len(CLASSES))]}
