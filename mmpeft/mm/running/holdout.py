"""The held-out split in a config: training validates on it."""

import os
from copy import deepcopy

from mmengine.config import Config, ConfigDict

from mmpeft.mm.checks import UserError, evaluators, leaves

ADVICE = 'mmpeft holdout writes one, and the rest to train on.'


def hold_out(cfg: Config) -> None:
    """Let ``cfg`` validate on its held-out split instead of its validation data, in place, if it names one.

    ``heldout`` in a config holds what its data set has other than the (first) training data set, ``ann_file`` above
    all, or ``data_prefix`` where a folder is the list, and as ``evaluator`` what the validation's evaluator has other
    then. Pipeline and evaluator are those of the validation, or else of the test.

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
        UserError: It names no ``ann_file`` and no ``data_prefix``, or the one that is trained on.
    """
    dataset = heldout_training_dataset(cfg)
    for key in {'filter_cfg', 'indices'} - {*cfg.heldout}:
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
    named = [key for key in ('ann_file', 'data_prefix') if options.get(key)]
    if not named:
        raise UserError(
            f'heldout is a dict(ann_file=...), or of another data_prefix, got {dict(cfg.heldout)}. {ADVICE}'
        )
    _, training = next(leaves('', cfg.train_dataloader.dataset))
    if all(options[key] == training.get(key) for key in named):
        raise UserError(f'heldout.{named[0]} is {options[named[0]]}, which is trained on. {ADVICE}')
    return ConfigDict(deepcopy({**training, **options}))
