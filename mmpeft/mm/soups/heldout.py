"""The held-out split on which soups are scored: training validates on it and never sees it."""

import hashlib
import os
import re
from copy import deepcopy
from pathlib import PurePath
from typing import Any

from mmengine.config import Config, ConfigDict

from mmpeft.data.subsets import PATCH
from mmpeft.mm.checks import UserError, evaluators, leaves

ADVICE = 'tools/prepare_data.py holdout writes one, and the rest to train on.'


def hold_out(cfg: Config) -> None:
    """Let ``cfg`` validate on its held-out split instead of its validation data, in place, if it names one.

    ``heldout`` in a config holds what its data set has other than the (first) training data set, ``ann_file`` above
    all, and as ``evaluator`` what the validation's evaluator has other then. Pipeline and evaluator are those of the
    validation, or else of the test.

    Raises:
        UserError: The config says too little to score on the split.
    """
    if not cfg.get('heldout'):
        return
    for key in ('dataloader', 'evaluator'):
        cfg[f'val_{key}'] = deepcopy(cfg.get(f'val_{key}') or cfg.get(f'test_{key}'))
        if not cfg[f'val_{key}']:
            raise UserError(f'heldout needs a val_{key} in the config, whose pipeline and metric score the split.')
    cfg.val_cfg = cfg.get('val_cfg') or dict(type='ValLoop')
    cfg.val_dataloader.dataset = dataset = heldout_dataset(cfg)
    options = cfg.heldout.get('evaluator', {})
    for metric in evaluators(cfg, 'val'):
        if 'ann_file' in metric:
            metric['ann_file'] = os.path.join(dataset.get('data_root') or '', dataset.ann_file)
        for_server = metric.pop('format_only', False) and metric.pop('outfile_prefix', None)
        if (metric.get('ann_dir') or for_server) and 'ann_dir' not in options:
            raise UserError(
                f'{metric["type"]} needs labels of whole held-out images. Say where they are: '
                'heldout.evaluator.ann_dir=FOLDER (that of the training images will do).'
            )
        metric.update(options)


def score_on_test(cfg: Config) -> None:
    """Let ``cfg`` validate on its test data, in place.

    Raises:
        UserError: It has none.
    """
    if not cfg.get('test_dataloader'):
        raise UserError('The config has no test_dataloader.')
    for key in ('dataloader', 'evaluator'):
        cfg[f'val_{key}'] = deepcopy(cfg[f'test_{key}'])
    cfg.val_cfg = dict(type='ValLoop')


def heldout_dataset(cfg: Config) -> ConfigDict:
    """The config of the data set that ``cfg.heldout`` describes, all of it and as validation reads it.

    Raises:
        UserError: It names no ``ann_file``, or the one that is trained on.
    """
    dataset = heldout_training_dataset(cfg)
    for key in ('filter_cfg', 'indices'):
        dataset.pop(key, None)
    _, validating = next(leaves('', cfg.val_dataloader.dataset))
    dataset.update(pipeline=deepcopy(validating.pipeline), test_mode=True)
    return dataset


def heldout_training_dataset(cfg: Config) -> ConfigDict:
    """The same images as training would read them.

    Raises:
        UserError: As above.
    """
    options = {key: value for key, value in cfg.heldout.items() if key != 'evaluator'}
    if not options.get('ann_file'):
        raise UserError(f'heldout is a dict(ann_file=...), got {dict(cfg.heldout)}. {ADVICE}')
    _, training = next(leaves('', cfg.train_dataloader.dataset))
    if options['ann_file'] == training.get('ann_file'):
        raise UserError(f'heldout.ann_file is {options["ann_file"]}, which is trained on. {ADVICE}')
    return ConfigDict(deepcopy({**training, **options}))


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
