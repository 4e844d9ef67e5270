"""Data sets for the configs under configs/demo."""

from mmdet.datasets import CocoDataset

from mmpeft.demo.digits import prepare_digits
from mmpeft.demo.scenes import CLASSES
from mmpeft.registry import DATASETS


@DATASETS.register_module()
class DigitsDataset(CocoDataset):
    """Handwritten digits on photographs, in COCO format, made in ``data_root`` at first use.

    Raises:
        DigitsError: ``data_root`` holds something else.
    """

    METAINFO = {
        'classes': CLASSES,
        'palette': [
            (230, 25, 75),
            (60, 180, 75),
            (255, 225, 25),
            (0, 130, 200),
            (245, 130, 48),
            (145, 30, 180),
            (70, 240, 240),
            (240, 50, 230),
            (210, 245, 60),
            (0, 128, 128),
        ],
    }

    def __init__(self, *args, data_root: str = 'data/digits', **kwargs) -> None:
        super().__init__(*args, data_root=data_root, **kwargs)

    @staticmethod
    def prepare(data_root: str) -> None:
        """Make the data, or check what is there; the tools call this before they look for files."""
        prepare_digits(data_root)

    def load_data_list(self) -> list[dict]:
        self.prepare(self.data_root)
        return super().load_data_list()
