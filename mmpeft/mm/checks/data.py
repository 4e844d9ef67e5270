"""Look for the data sets of a config before weights are downloaded and a model is built."""

import os

from mmengine.config import Config
from mmengine.registry import DATASETS

from mmpeft.mm.checks.errors import UserError
from mmpeft.mm.checks.reading import evaluators, leaves


def check_data(cfg: Config, *splits: str) -> None:
    """Refuse data sets whose files are not there, before weights are downloaded and a model is built.

    Args:
        cfg: A config; the paths in it are relative to the current folder.
        splits: Which of ``train``, ``val`` and ``test`` will be used.

    Raises:
        UserError: Files or folders are missing; it says which layout is expected.
    """
    for split in splits:
        loader = cfg.get(f'{split}_dataloader')
        if isinstance(loader, dict) and 'dataset' in loader:
            for key, dataset in leaves(f'{split}_dataloader.dataset', loader['dataset']):
                _check_dataset(key, dataset)
        for evaluator in evaluators(cfg, split):
            ann_file = evaluator.get('ann_file')
            if isinstance(ann_file, str) and _is_missing(ann_file):
                raise UserError(
                    f'{split}_evaluator: no file {ann_file}. Give the annotations of the {split} data with '
                    f'--cfg-options {split}_evaluator.ann_file=FILE.'
                )


def _check_dataset(key: str, dataset: dict) -> None:
    if dataset.get('backend_args'):  # not on this file system
        return
    root = dataset.get('data_root') or ''
    if str(dataset.get('type')).startswith('mmpeft.'):
        prepare = getattr(DATASETS.get(dataset['type']), 'prepare', None)
        if prepare is not None:  # it makes its data itself
            prepare(root)
    prefixes = dataset.get('data_prefix') or {}
    parts = [dataset.get('ann_file'), *(prefixes.values() if isinstance(prefixes, dict) else [prefixes])]
    expected = [part for part in parts if isinstance(part, str) and part] or ['']
    missing = [path for path in (os.path.join(root, part) for part in expected) if _is_missing(path)]
    if missing:
        raise UserError(
            f'Data not found: {", ".join(missing)} (seen from {os.getcwd()}). '
            f'{dataset.get("type")} expects in {root or "the current folder"}: {", ".join(expected)}. '
            f'Put the data there, or say where it is with --cfg-options {key}.data_root=FOLDER.'
        )


def _is_missing(path: str) -> bool:
    return '://' not in path and not os.path.exists(os.path.expanduser(path))
