"""One image through several tasks of a bank, drawn side by side."""

import colorsys
from collections.abc import Sequence
from pathlib import Path

import mmcv
import numpy as np
import torch
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import VISUALIZERS
from mmengine.structures import BaseDataElement
from torch import nn

from mmpeft.demo.pictures import draw_panels
from mmpeft.mm.bank import load_bank, scope_of
from mmpeft.mm.checks import UserError, leaves

DRAWERS = dict(mmdet='DetLocalVisualizer', mmseg='SegLocalVisualizer', mmrotate='RotLocalVisualizer')


def predict(
    image: str,
    bank: str,
    tasks: Sequence[str] | None = None,
    out: str | None = None,
    device: str = 'cpu',
    min_score: float = 0.3,
) -> str:
    """Run one image through tasks of a bank and draw what each finds, side by side in one picture.

    Args:
        image: An image file.
        bank: The YAML file of the bank.
        tasks: Their names; by default all.
        out: The picture to write; by default ``<name of the image>_tasks.png`` in the current folder.
        device: Where to compute.
        min_score: The score from which on boxes are drawn.

    Returns:
        A line a task, and one that names the picture.

    Raises:
        UserError: The image, the bank or the device cannot be used, or the picture exists.
    """
    path = Path(out or f'{Path(image).stem}_tasks.png')
    if path.exists():
        raise UserError(f'{path} exists; name another file with --out, nothing is overwritten.')
    pixels = _read_image(image)
    loaded = load_bank(bank, tasks)
    try:
        loaded.to(device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f'--device {device} cannot be used: {str(error).splitlines()[0]}') from error
    panels, lines = [], []
    for name in loaded.list():
        with loaded.use(name) as model:
            if 'classes' not in model.dataset_meta:
                raise UserError(
                    f'The file of the task {name} does not name its classes; write it with '
                    'mmpeft.save_adapters(..., dataset_meta=dict(classes=[...])).'
                )
            sample = find(model, image)
        text = summary(model, sample, min_score)
        panels.append((f'{name}: {text}', draw(model, pixels, sample, min_score)))
        lines.append(f'{name}: {text}')
    draw_panels(panels, path)
    return '\n'.join([*lines, f'The picture is {path}.'])


def find(model: nn.Module, image: str) -> BaseDataElement:
    """What a model with a config, as those of ``load_bank``, finds in an image file, by its test pipeline."""
    _, dataset = next(leaves('test_dataloader.dataset', model.cfg.test_dataloader.dataset))
    with scope_of(model.cfg), torch.no_grad():
        pipeline = Compose([step for step in dataset.pipeline if not step['type'].endswith('Annotations')])
        return model.test_step(pseudo_collate([pipeline(dict(img_path=image, img_id=0))]))[0].cpu()


def draw(model: nn.Module, pixels: np.ndarray, sample: BaseDataElement, min_score: float) -> np.ndarray:
    """The image (RGB) with what the model found on it, by the visualizer of its library."""
    scope, classes = model.cfg.default_scope, model.dataset_meta['classes']
    with scope_of(model.cfg):
        visualizer = VISUALIZERS.build(dict(type=DRAWERS[scope], name=f'{id(model)}'))
    visualizer.dataset_meta = dict(classes=classes, palette=model.dataset_meta.get('palette') or _colours(len(classes)))
    threshold = {} if scope == 'mmseg' else dict(pred_score_thr=min_score)
    visualizer.add_datasample('', pixels, sample, draw_gt=False, **threshold)
    return visualizer.get_image()


def summary(model: nn.Module, sample: BaseDataElement, min_score: float) -> str:
    """What was found, in a few words: how many of each class, or of the pixels how many per cent."""
    classes = model.dataset_meta['classes']
    if 'pred_sem_seg' in sample:
        pixels = sample.pred_sem_seg.data.flatten().bincount(minlength=len(classes))
        shares = [100 * count / pixels.sum() for count in pixels.tolist()]
        return ', '.join(f'{name} {share:.0f} %' for name, share in zip(classes, shares, strict=False) if share)
    labels = sample.pred_instances.labels[sample.pred_instances.scores >= min_score].tolist()
    return ', '.join(f'{classes[label]} x{labels.count(label)}' for label in sorted(set(labels))) or 'nothing'


def _read_image(path: str) -> np.ndarray:
    if not Path(path).is_file():
        raise UserError(f'No image {path}.')
    pixels = mmcv.imread(path)
    if pixels is None:
        raise UserError(f'{path} cannot be read as an image.')
    return pixels[..., ::-1].copy()


def _colours(count: int) -> list[tuple[int, int, int]]:
    """Colours around the circle of hues, for tasks that name none."""
    return [tuple(round(255 * v) for v in colorsys.hsv_to_rgb(i / count, 0.8, 0.95)) for i in range(count)]
