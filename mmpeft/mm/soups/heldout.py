"""The images of a held-out split, on which soups are scored and which no run may train on."""

import hashlib
import os
import re
from pathlib import PurePath
from typing import Any

from mmpeft.data.subsets import PATCH
from mmpeft.mm.checks import UserError
from mmpeft.mm.running.holdout import ADVICE
from mmpeft.mm.running.holdout import hold_out as hold_out  # where it was found before


def image_names(dataset: Any) -> list[str]:
    """The images of a built data set, inside wrappers too: paths below its folder of images, without their endings.

    Raises:
        UserError: The data set does not tell where its images are.
    """
    if hasattr(dataset, 'datasets'):
        return [name for part in dataset.datasets for name in image_names(part)]
    if hasattr(dataset, 'dataset'):
        return image_names(dataset.dataset)
    folders = sorted(filter(None, getattr(dataset, 'data_prefix', {}).values()), key=len, reverse=True)
    return [_name(_path(dataset, index), folders) for index in range(len(dataset))]


def heldout_hash(names: list[str]) -> str:
    """SHA-256 of a list of images, in whatever order and folder they are."""
    return hashlib.sha256('\n'.join(sorted(names)).encode()).hexdigest()


def check_no_leak(train: list[str], heldout: list[str]) -> None:
    """Refuse to train on held-out images, or on other patches of one of them.

    Raises:
        UserError: It names some of those that are in both.
    """
    both = sorted({*map(_source, train)} & {*map(_source, heldout)})
    if both:
        raise UserError(
            f'{len(both)} held-out images are in the training data, such as {", ".join(both[:3])}: scores on them '
            f'would mean nothing. Give training another ann_file; {ADVICE}'
        )


def _path(dataset: Any, index: int) -> str:
    info = dataset.get_data_info(index)
    if 'img_path' not in info:
        raise UserError(
            f'{type(dataset).__name__} does not say where its images are (img_path), so that nobody can tell whether '
            'held-out ones are among them.'
        )
    return info['img_path']


def _name(path: str, folders: list[str]) -> str:
    folder = next((folder for folder in folders if PurePath(path).is_relative_to(folder)), os.path.dirname(path))
    return PurePath(path).relative_to(folder).with_suffix('').as_posix()


def _source(name: str) -> str:
    """The whole image that a patch is of; any other image itself."""
    match = re.fullmatch(PATCH, name)
    return match[1] if match else name
