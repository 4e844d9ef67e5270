"""What the folders of known data sets hold: parts such as train and val, their files, classes and counts."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mmpeft.data.loaders import Loader

COCO = (
    'person|bicycle|car|motorcycle|airplane|bus|train|truck|boat|traffic light|fire hydrant|stop sign|parking meter|'
    'bench|bird|cat|dog|horse|sheep|cow|elephant|bear|zebra|giraffe|backpack|umbrella|handbag|tie|suitcase|frisbee|'
    'skis|snowboard|sports ball|kite|baseball bat|baseball glove|skateboard|surfboard|tennis racket|bottle|wine glass|'
    'cup|fork|knife|spoon|bowl|banana|apple|sandwich|orange|broccoli|carrot|hot dog|pizza|donut|cake|chair|couch|'
    'potted plant|bed|dining table|toilet|tv|laptop|mouse|remote|keyboard|cell phone|microwave|oven|toaster|sink|'
    'refrigerator|book|clock|vase|scissors|teddy bear|hair drier|toothbrush'
)
VOC = (
    'aeroplane|bicycle|bird|boat|bottle|bus|car|cat|chair|cow|diningtable|dog|horse|motorbike|person|pottedplant|'
    'sheep|sofa|train|tvmonitor'
)
DOTA = (
    'plane|baseball-diamond|bridge|ground-track-field|small-vehicle|large-vehicle|ship|tennis-court|basketball-court|'
    'storage-tank|soccer-ball-field|roundabout|harbor|swimming-pool|helicopter'
)
STAR = (
    'ship|boat|crane|goods_yard|tank|storehouse|breakwater|dock|airplane|boarding_bridge|runway|taxiway|terminal|'
    'apron|gas_station|truck|car|truck_parking|car_parking|bridge|cooling_tower|chimney|vapor|smoke|genset|coal_yard|'
    'lattice_tower|substation|wind_mill|cement_concrete_pavement|toll_gate|flood_dam|gravity_dam|ship_lock|'
    'ground_track_field|basketball_court|engineering_vehicle|foundation_pit|intersection|soccer_ball_field|'
    'tennis_court|tower_crane|unfinished_building|arch_dam|roundabout|baseball_diamond|stadium|containment_vessel'
)


def label_names(count: int) -> tuple[str, ...]:
    """What stands for class names where label maps hold numbers: 1 to ``count``; 0 is what has no class."""
    return tuple(f'label {value}' for value in range(1, count + 1))


@dataclass(frozen=True)
class Part:
    """One part of a data set.

    Args:
        name: Such as train.
        annotations: Under the root: a json file of COCO, a list file of VOC, a folder of label maps or of label files.
            None where the part comes without.
        images: The folder of images; for VOC the one that holds JPEGImages and Annotations.
        count: The images of the published part; None where that is not known.
        loader: How it will be read.
    """

    name: str
    annotations: str | None
    images: str
    count: int | None = None
    loader: Loader = Loader()


@dataclass(frozen=True)
class Tree:
    """A data set: where to get it, its parts and its classes; `general` formats hold the data sets of many others."""

    source: str
    parts: tuple[Part, ...]
    classes: tuple[str, ...]
    general: bool = False


TREES = {
    'coco': Tree(
        'https://cocodataset.org/#download (2017: train images, val images, train/val annotations)',
        (
            Part('train', 'annotations/instances_train2017.json', 'train2017', 118287),
            Part('val', 'annotations/instances_val2017.json', 'val2017', 5000),
        ),
        tuple(COCO.split('|')),
        general=True,
    ),
    'voc': Tree(
        'http://host.robots.ox.ac.uk/pascal/VOC/ (2007: trainval and test; 2012: trainval)',
        (
            Part('trainval2007', 'VOC2007/ImageSets/Main/trainval.txt', 'VOC2007', 5011),
            Part('test2007', 'VOC2007/ImageSets/Main/test.txt', 'VOC2007', 4952),
            Part('trainval2012', 'VOC2012/ImageSets/Main/trainval.txt', 'VOC2012', 11540),
        ),
        tuple(VOC.split('|')),
        general=True,
    ),
    'ade20k': Tree(
        'http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip',
        (
            Part('training', 'annotations/training', 'images/training', 20210),
            Part('validation', 'annotations/validation', 'images/validation', 2000),
        ),
        label_names(150),
    ),
    'dota': Tree(
        'https://captain-whu.github.io/DOTA/dataset.html (1.0; the label files are those of labelTxt-v1.0)',
        (
            Part('train', 'train/labelTxt', 'train/images', 1411),
            Part('val', 'val/labelTxt', 'val/images', 458),
            Part('test', None, 'test/images', 937),
        ),
        tuple(DOTA.split('|')),
    ),
    'star': Tree(
        'https://github.com/VisionXLab/STAR-MMRotate (label files in the format of DOTA)',
        (
            Part('train', 'train/labelTxt', 'train/images'),
            Part('val', 'val/labelTxt', 'val/images'),
            Part('test', None, 'test/images'),
        ),
        tuple(STAR.split('|')),
    ),
}


def tree_of(format: str, wanted: Sequence[str] = (), classes: Sequence[str] | None = None) -> Tree:
    """The tree of a format, with the parts and classes that were asked for instead of the published ones.

    Args:
        format: A key of ``TREES``.
        wanted: Names of parts, or ``NAME=ANNOTATIONS:IMAGES`` for parts of one's own; none for all published ones.
        classes: Names instead of the published ones.

    Raises:
        ValueError: A part is not known.
    """
    tree = TREES[format]
    parts = tuple(_part(text, tree) for text in wanted) or tree.parts
    if classes is None:
        classes = () if tree.general and not set(parts) <= set(tree.parts) else tree.classes
    elif format == 'ade20k':
        classes = label_names(len(classes))
    return Tree(tree.source, parts, tuple(classes), tree.general)


def missing_files(tree: Tree, root: Path) -> list[str]:
    """The files and folders of the tree's parts that are not there."""
    paths = dict.fromkeys(path for part in tree.parts for path in (part.annotations, part.images) if path)
    return [path for path in paths if not (root / path).exists()]


def _part(text: str, tree: Tree) -> Part:
    name, equals, places = text.partition('=')
    if equals:
        annotations, colon, images = places.partition(':')
        if not (name and colon and images):
            raise ValueError(f'A part of your own is told as NAME=ANNOTATIONS:IMAGES, got {text!r}.')
        return Part(name, annotations or None, images)
    known = {part.name: part for part in tree.parts}
    if name not in known:
        raise ValueError(f'No part {name!r}; there are {", ".join(known)}. Your own: NAME=ANNOTATIONS:IMAGES.')
    return known[name]
