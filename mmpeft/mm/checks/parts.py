"""What the data sets of a config will read, in the words of the check of data."""

import inspect
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import DATASETS, Registry

from mmpeft.data.loaders import Loader
from mmpeft.data.trees import Part
from mmpeft.mm.checks.errors import UserError
from mmpeft.mm.checks.reading import evaluators, type_name

# By the class that says how annotations are loaded; those that load them in another way are not looked into.
FORMATS = {
    'CocoDataset': 'coco',
    'DigitsDataset': 'coco',
    'XMLDataset': 'voc',
    'BaseSegDataset': 'ade20k',
    'DOTADataset': 'dota',
}
TURNING = ({'cv2', 'pillow'}, {'color', 'grayscale'})


@dataclass(frozen=True)
class Described:
    """A data set of a config.

    Args:
        format: A key of ``mmpeft.data.trees.TREES``.
        root: The folder that its paths begin in.
        part: Its files and how they are read.
        names: The names of its classes.
        classes: What the objects of each class are called by the check: their names, or labels.
        labels: The highest value in its label maps, 255 apart.
    """

    format: str
    root: Path
    part: Part
    names: tuple[str, ...]
    classes: tuple[str, ...]
    labels: int | None = None


def described(cfg: Config, split: str, key: str, dataset: dict) -> Described | None:
    """A data set as the check takes it; None for a kind that it does not know.

    Args:
        cfg: A config whose library is registered.
        split: ``train``, ``val`` or ``test``.
        key: The key of the data set in it.
        dataset: Its config.

    Raises:
        UserError: Its classes are no tuple of names, or none that it has.
    """
    kind = class_of(DATASETS, dataset.get('type'), cfg.get('default_scope'))
    names = _class_names(key, dataset, kind)
    loads = getattr(kind, 'load_data_list', None)
    format = FORMATS.get(getattr(loads, '__qualname__', '').partition('.')[0])
    if format is None:
        return None
    steps = list(_steps(dataset.get('pipeline')))
    common = dict(turned=_turns(steps), trained=not dataset.get('test_mode'), chosen=True, whole_images=False)
    paths = [dataset.get('ann_file') or '', dict(dataset.get('data_prefix') or {})]
    filters = dataset.get('filter_cfg') or {}
    if format == 'coco':
        masks = [step for step in steps if step.get('with_mask')]
        scored = any('segm' in (metric.get('metric') or ()) for metric in evaluators(cfg, split))
        common |= dict(masks=bool(masks) or (scored and split != 'train'), min_size=filters.get('min_size', 0))
        common |= dict(polygons=any(step.get('poly2mask') is False for step in masks))
        return _described(format, key, dataset, paths[0], paths[1].get('img', ''), names, Loader(**common))
    if format == 'voc':
        folders = option_of(kind, dataset, 'img_subdir'), option_of(kind, dataset, 'ann_subdir')
        common |= dict(min_size=filters.get('min_size', 0), min_box=filters.get('bbox_min_size') or 0, folders=folders)
        return _described(format, key, dataset, paths[0], paths[1].get('sub_data_root', ''), names, Loader(**common))
    ending = option_of(kind, dataset, 'img_suffix')
    if format == 'dota':
        common |= dict(image_ending=f'.{ending}')
        return _described(format, key, dataset, paths[0], paths[1].get('img_path', ''), names, Loader(**common))
    return _described_maps(cfg, key, dataset, kind, names, steps, dict(common, image_ending=ending))


def _described(
    format: str, key: str, dataset: dict, annotations: str | None, images: str, names: tuple[str, ...], loader: Loader
) -> Described:
    part = Part(key, annotations or None, images, loader=loader)
    return Described(format, Path(os.path.expanduser(dataset.get('data_root') or '')), part, names, names)


def _described_maps(
    cfg: Config, key: str, dataset: dict, kind: type, names: tuple[str, ...], steps: list[dict], common: dict
) -> Described:
    reduce = bool(option_of(kind, dataset, 'reduce_zero_label'))
    for step in steps:
        if step.get('reduce_zero_label') not in (None, reduce):
            raise UserError(
                f'{key}.reduce_zero_label is {reduce}, and {type_name(step.get("type"))} in its pipeline sets '
                f'{step["reduce_zero_label"]}. Leave it out of the pipeline.'
            )
    try:
        label_map = kind.get_label_map(names or None)
    except ValueError as error:
        raise UserError(f'{key}.metainfo.classes: {error}') from error
    root, listed = dataset.get('data_root') or '', dataset.get('ann_file') or ''
    path = os.path.join(root, listed)
    loader = Loader(
        **common,
        reduce_zero_label=reduce,
        label_map=label_map,
        void=_void(cfg, kind, dataset),
        label_ending=option_of(kind, dataset, 'seg_map_suffix'),
        listed=path if listed and not os.path.isdir(path) else None,
        deep=True,
    )
    prefixes = dataset.get('data_prefix') or {}
    part = Part(key, prefixes.get('seg_map_path') or None, prefixes.get('img_path') or '', loader=loader)
    count = len(label_map) if label_map else len(names)
    first = int(reduce)
    kept = [label for label in range(count) if (label_map or {}).get(label) != 255]
    classes = tuple(f'label {label + first}' for label in kept)
    return Described('ade20k', Path(root), part, names, classes, count - 1 + first if names else None)


def _void(cfg: Config, kind: type, dataset: dict) -> int | None:
    """The label that is ignored, where the data set and all heads name the same one."""
    heads = [head for name, node in cfg.model.items() if name.endswith('_head') for head in _steps(node)]
    said = {head.get('ignore_index', 255) for head in heads if 'num_classes' in head}
    own = option_of(kind, dataset, 'ignore_index')
    return own if said == {own} else None


def _class_names(key: str, dataset: dict, kind: type | None) -> tuple[str, ...]:
    info, prefix = dataset.get('metainfo') or {}, dataset.get('data_prefix') or {}
    for name, value, example in (('metainfo', info, "classes=('disk',)"), ('data_prefix', prefix, "img='train/'")):
        if not isinstance(value, dict):
            raise UserError(f'{key}.{name} is {value!r:.80}, and it takes a dict, such as dict({example}).')
    names = info.get('classes', getattr(kind, 'METAINFO', {}).get('classes'))
    if 'CLASSES' in info:
        raise UserError(f'{key}.metainfo has CLASSES, which is not read; write classes.')
    if isinstance(names, str) and os.path.isfile(names):
        names = Path(names).read_text().splitlines()
    if isinstance(names, str):
        raise UserError(
            f'{key}.metainfo.classes is the word {names!r}, of which each letter would be a class. A tuple of one name '
            f"has a comma: classes=({names!r},); in --cfg-options: '{key}.metainfo.classes=[{names}]'."
        )
    names = tuple(names or ())
    twice = {name for name in names if not isinstance(name, str) or names.count(name) > 1}
    if twice:
        raise UserError(
            f'{key}.metainfo.classes takes names, each of them once, and holds {", ".join(map(repr, twice))}.'
        )
    return names


def class_of(registry: Registry, name: Any, scope: str | None) -> type | None:
    """The class that a type in a config stands for, in a scope whose library is registered."""
    if not isinstance(name, str):
        return name if isinstance(name, type) else None
    with registry.switch_scope_and_registry(scope) as scoped:
        return scoped.get(name)


def option_of(kind: type, dataset: dict, name: str) -> Any:
    """The value of an option: what the config says, or else the default of the class."""
    if name in dataset:
        return dataset[name]
    for base in kind.__mro__:
        parameter = inspect.signature(base.__init__).parameters.get(name)
        if parameter is not None and parameter.default is not parameter.empty:
            return parameter.default
    return None


def _steps(node: Any) -> Iterator[dict]:
    """The transforms of a pipeline, those inside others too."""
    if isinstance(node, dict):
        yield node
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list | tuple) else ():
        yield from _steps(child)


def _turns(steps: list[dict]) -> bool:
    """Whether images are read with their EXIF orientation."""
    loads = [step for step in steps if type_name(step.get('type')) == 'LoadImageFromFile']
    backends, colors = TURNING
    return all(
        (step.get('imdecode_backend') or 'cv2') in backends and step.get('color_type', 'color') in colors
        for step in loads
    )
