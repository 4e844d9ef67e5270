"""Rotated boxes on whole images and in the patches that they are cut into, and what mmrotate makes of them."""

from types import SimpleNamespace

import mmrotate.evaluation.functional.mean_ap as theirs
import numpy as np
import torch
from mmrotate.structures.bbox import rbox2qbox

from mmpeft.mm.rotated.merged_dota import MergedDOTAMetric
from mmpeft.mm.rotated.patches import Detections, Truth

CLASSES = ('plane', 'ship', 'harbor')
WINDOW, STEP, SIDE = 256, 192, 640  # patches overlap by 64 px


def boxes(*rows) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float32).reshape(-1, 5)


def scene(seed: int) -> tuple[Truth, Detections]:
    """Objects of three classes on a grid, so that none overlap, and detections: shifted ones, misses, false ones."""
    draw = torch.Generator().manual_seed(seed)
    centres = torch.cartesian_prod(torch.arange(40.0, SIDE - 40, 48), torch.arange(40.0, SIDE - 40, 48))
    uniform = torch.rand(len(centres), 8, generator=draw)
    sizes = 16 + 20 * uniform[:, :2]
    placed = torch.cat([centres, sizes, (uniform[:, 2:3] - 0.5) * 3.1], dim=1)
    labels = (uniform[:, 3] * len(CLASSES)).long()
    real, seen = uniform[:, 4] < 0.7, uniform[:, 5] < 0.8
    shift = torch.cat([(uniform[:, 6:8] - 0.5) * 6, torch.zeros(len(centres), 3)], dim=1)
    guesses = torch.where(uniform[:, 7] < 0.9, labels, (labels + 1) % len(CLASSES))
    scores = torch.rand(len(centres), generator=draw)
    ignored = torch.zeros(int(real.sum()), dtype=torch.bool)
    truth = Truth(placed[real], labels[real], ignored)
    return truth, Detections((placed + shift)[seen], scores[seen], guesses[seen])


def cut(name: str, truth: Truth, found: Detections, rate: float = 1.0, style: str = '{0}__{1}__{2}___{3}'):
    """Samples of the overlapping patches of an image: each holds what has its centre at least 10 px inside."""
    samples = []
    last = int(SIDE * rate) - WINDOW
    for x in [*range(0, last, STEP), last]:
        for y in [*range(0, last, STEP), last]:
            parts = [part._replace(boxes=part.boxes * torch.tensor([rate] * 4 + [1.0])) for part in (truth, found)]
            inside = [_inside(part.boxes[:, :2] - torch.tensor([x, y])) for part in parts]
            parts = [type(part)(*(value[i] for value in part)) for part, i in zip(parts, inside, strict=True)]
            corner = torch.tensor([x, y, 0, 0, 0.0])
            parts = [part._replace(boxes=part.boxes - corner) for part in parts]
            samples.append(sample(style.format(name, WINDOW, x, y), *parts))
    return samples


def _inside(centres: torch.Tensor) -> torch.Tensor:
    return ((centres >= 10) & (centres <= WINDOW - 10)).all(dim=1)


def sample(name: str, truth: Truth | None, found: Detections) -> dict:
    """What mmengine hands to a metric."""
    objects = dict(gt_instances={}, ignored_instances={})
    if truth is not None:
        for key, which in dict(gt_instances=~truth.ignored, ignored_instances=truth.ignored).items():
            objects[key] = dict(bboxes=truth.boxes[which], labels=truth.labels[which])
    predicted = dict(bboxes=found.boxes, scores=found.scores, labels=found.labels)
    return dict(img_id=name, pred_instances=predicted, **objects)


def score(samples: list[dict], **options) -> dict[str, float]:
    metric = MergedDOTAMetric(**options)
    metric.dataset_meta = dict(classes=CLASSES)
    for one in samples:
        metric.process({}, [one])
    return metric.evaluate(len(samples))


def write_labels(folder, name: str, truth: Truth, classes=CLASSES) -> None:
    folder.mkdir(exist_ok=True)
    lines = ['imagesource:GoogleEarth', 'gsd:0.5']
    for quad, label, ignored in zip(rbox2qbox(truth.boxes).tolist(), truth.labels, truth.ignored, strict=True):
        lines.append(f'{" ".join(map(str, quad))} {classes[label]} {int(ignored)}')
    (folder / f'{name}.txt').write_text('\n'.join(lines) + '\n')


def map_of_mmrotate(monkeypatch, images: list[tuple[Truth, Detections]], iou_thr: float, eleven_points: bool) -> float:
    """``eval_rbbox_map`` of mmrotate, in this process instead of those it spawns."""
    serial = SimpleNamespace(starmap=lambda call, rows: [call(*row) for row in rows], close=lambda: None)
    monkeypatch.setattr(theirs, 'get_context', lambda _: SimpleNamespace(Pool=lambda _: serial))
    found = [
        [torch.cat([f.boxes, f.scores[:, None]], dim=1)[f.labels == label].numpy() for label in range(len(CLASSES))]
        for _, f in images
    ]
    truths = [
        dict(
            bboxes=truth.boxes[~truth.ignored].numpy(),
            labels=truth.labels[~truth.ignored].numpy(),
            bboxes_ignore=truth.boxes[truth.ignored].numpy(),
            labels_ignore=truth.labels[truth.ignored].numpy(),
        )
        for truth, _ in images
    ]
    return theirs.eval_rbbox_map(
        found, truths, iou_thr=iou_thr, use_07_metric=eleven_points, dataset=CLASSES, logger='silent'
    )[0]


def random_images(seed: int, count: int = 4) -> list[tuple[Truth, Detections]]:
    """Images crowded with overlapping boxes, ties in the scores and ignored objects."""
    draw = np.random.default_rng(seed)
    images = []
    for _ in range(count):
        n, m = draw.integers(0, 40, 2)
        place = [torch.tensor(draw.uniform(0, 100, (k, 5)), dtype=torch.float32) for k in (n, m)]
        for part in place:
            part[:, 2:4] = 20 + part[:, 2:4] / 3
            part[:, 4] = part[:, 4] / 32
        labels = [torch.from_numpy(draw.integers(0, len(CLASSES), k)) for k in (n, m)]
        truth = Truth(place[0], labels[0], torch.from_numpy(draw.random(n) < 0.2))
        images.append((truth, Detections(place[1], torch.from_numpy(draw.random(m)).float(), labels[1])))
    return images
