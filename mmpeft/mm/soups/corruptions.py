"""Damage to evaluation images, which a robust model bears."""

import hashlib
from collections.abc import Callable

import cv2
import numpy as np
from mmcv.transforms import BaseTransform
from mmengine.config import Config

from mmpeft.mm.checks import UserError, leaves
from mmpeft.registry import TRANSFORMS

CORRUPTIONS: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = dict(
    blur=lambda image, draw: cv2.GaussianBlur(image, None, 2.0),
    noise=lambda image, draw: np.clip(image + draw.normal(0, 25.5, image.shape), 0, 255).round().astype(np.uint8),
    jpeg=lambda image, draw: cv2.imdecode(
        cv2.imencode('.jpg', image, [cv2.IMWRITE_JPEG_QUALITY, 15])[1], cv2.IMREAD_COLOR
    ),
)


@TRANSFORMS.register_module()
class Corrupt(BaseTransform):
    """Damage the image right after it was loaded, the same image always in the same way.

    Args:
        kind: ``blur``, Gaussian with a standard deviation of 2 px; ``noise``, Gaussian with one of a tenth of the
            range; or ``jpeg``, compressed at quality 15.
    """

    def __init__(self, kind: str) -> None:
        if kind not in CORRUPTIONS:
            raise ValueError(f'A kind of corruption is one of {", ".join(CORRUPTIONS)}, got {kind!r}.')
        self.kind = kind

    def transform(self, results: dict) -> dict:
        name = results['img_path'].replace('\\', '/').rpartition('/')[2]
        seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], 'big')
        results['img'] = CORRUPTIONS[self.kind](results['img'], np.random.default_rng(seed))
        return results


def corrupt_validation(cfg: Config, kind: str) -> None:
    """Let the validation of ``cfg`` see damaged images, in place.

    Raises:
        UserError: No step of the pipeline loads images from files.
    """
    for _, dataset in leaves('', cfg.val_dataloader.dataset):
        names = [step.type.rpartition('.')[2] for step in dataset.pipeline]
        if 'LoadImageFromFile' not in names:
            raise UserError(f'No LoadImageFromFile in the pipeline of {dataset.type}, behind which images get damaged.')
        dataset.pipeline.insert(names.index('LoadImageFromFile') + 1, dict(type='mmpeft.Corrupt', kind=kind))
