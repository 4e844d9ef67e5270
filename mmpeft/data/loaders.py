"""What the check takes for granted about the loaders that will read a part: by default, what mm's own take."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Loader:
    """How training will read a part.

    Args:
        masks: Whether masks are read; None if that is not known.
        polygons: Whether masks are kept as polygons, so that those in RLE are left out (``poly2mask=False``).
        turned: Whether images are turned as their EXIF orientation says: mmcv's OpenCV and Pillow do, turbojpeg,
            tifffile and ``color_type='unchanged'`` or ``'..._ignore_orientation'`` do not.
        whole_images: Whether label files of quadrilaterals are those of whole images, which ``split`` reads.
        trained: Whether it is read for training, which filters images, and not for scores.
        min_size: Images with a shorter side, in px, are not trained on.
        min_box: Boxes of VOC with a shorter side, in px, are not trained on.
        chosen: Whether objects of other classes than those that are named are left out on purpose.
        image_ending: The one of all images, as in ``.jpg``; None for any.
        label_ending: That of label maps.
        listed: A file with the names of the images, for label maps.
        deep: Whether images in folders inside the folder of images are read, too.
        reduce_zero_label: Whether label 0 is ignored and 1 is the first class; None if that is not known.
        label_map: What becomes of the labels after that.
        void: The label that is ignored; None for 255 alone.
        folders: Those of images and annotations of VOC.
    """

    masks: bool | None = None
    polygons: bool = False
    turned: bool = True
    whole_images: bool = True
    trained: bool = True
    min_size: int = 32
    min_box: int = 0
    chosen: bool = False
    image_ending: str | None = None
    label_ending: str = '.png'
    listed: str | None = None
    deep: bool = False
    reduce_zero_label: bool | None = None
    label_map: Mapping[int, int] | None = None
    void: int | None = None
    folders: tuple[str, str] = ('JPEGImages', 'Annotations')


# What the check says of itself where no config tells.
ASSUMED = {
    'coco': "mmdet's CocoDataset",
    'voc': "mmdet's XMLDataset",
    'ade20k': "mmseg's ADE20KDataset",
    'dota': "mmpeft's split and mmrotate's DOTADataset",
    'star': "mmpeft's split and STARDataset",
}
EXIF = (
    'images by mmcv with its default backend, which turns them as EXIF says (turbojpeg, tifffile and '
    '*_ignore_orientation do not)'
)
