"""Whether the heads of a model have as many classes as the data."""

from collections.abc import Iterator, Sequence
from typing import Any

from mmengine.config import Config
from mmengine.registry import MODELS

from mmpeft.mm.checks.errors import UserError
from mmpeft.mm.checks.parts import class_of, option_of
from mmpeft.mm.checks.reading import type_name

# Heads that say nothing of the classes of the data: objects or not, stuff, edges.
OTHERS = {'rpn_head', 'semantic_head', 'fusion_head', 'panoptic_fusion_head'}
COUNTING = {'bbox_head', 'mask_head'}  # also where the number is that of COCO, by default
OTHER_TYPES = {'STDCHead'}


def check_heads(cfg: Config, key: str, dataset: dict, classes: Sequence[str]) -> None:
    """Refuse heads of another number of classes than a data set.

    Args:
        cfg: A config.
        key: The key of the data set in it.
        dataset: Its config.
        classes: The names of its classes.

    Raises:
        UserError: With both numbers, and the keys to set.
    """
    if not classes or dataset.get('return_classes'):  # such heads compare with the words themselves
        return
    other = {
        key: count
        for key, count in _heads('model', cfg.get('model'), cfg.get('default_scope'))
        if count != len(classes)
    }
    if other:
        names = ', '.join(map(repr, classes[:10])) + (', ...' if len(classes) > 10 else '')
        raise UserError(
            f'{key} has {len(classes)} classes ({names}), and the heads have '
            f'{" and ".join(map(str, sorted({*other.values()})))}. Give the names of the classes by '
            f'{key}.metainfo.classes, and their number: --cfg-options '
            f'{" ".join(f"{name}={len(classes)}" for name in other)}.'
        )


def _heads(key: str, node: Any, scope: str | None) -> Iterator[tuple[str, int]]:
    """The keys of the numbers of classes of heads, with the numbers."""
    if isinstance(node, list | tuple):
        for index, child in enumerate(node):
            yield from _heads(f'{key}.{index}', child, scope)
    if not isinstance(node, dict):
        return
    name = next(part for part in reversed(key.split('.')) if not part.isdigit())
    if name in OTHERS or type_name(node.get('type')) in OTHER_TYPES:
        return
    if name in COUNTING or (name.endswith('_head') and 'num_classes' in node):
        count = option_of(class_of(MODELS, node.get('type'), scope) or object, node, 'num_classes')
        if isinstance(count, int):
            yield f'{key}.num_classes', count
    for child_name, child in node.items():
        if name == 'model' or name.endswith(('_head', 'module', 'detector', 'segmentor')):
            yield from _heads(f'{key}.{child_name}', child, scope)
