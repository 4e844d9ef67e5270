"""The demo: train a config of configs/demo, show what happens, draw what came out, sum it up."""

import json
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.runner import Runner
from PIL import Image

from mmpeft.demo.digits import prepare_digits
from mmpeft.demo.pictures import Boxes, Example, draw_curves, draw_examples
from mmpeft.freeze import count_parameters
from mmpeft.mm.checks import UserError, read_config
from mmpeft.mm.runners import bare_model
from mmpeft.mm.running.run import train

MARKER = 'demo.json'  # in a work dir, says that the demo made it
EXAMPLES = 8
WEIGHTS = ('.pth', '.safetensors')
MIN_SCORE = 0.5  # of a box in the pictures


@dataclass(frozen=True)
class Result:
    """What a demo ended with: AP and AP50 (0 to 1), on how many images, parameters, seconds, files."""

    config: str
    ap: float
    ap50: float
    images: int
    trainable: int
    trainable_backbone: int
    backbone: int
    seconds: float
    files: tuple[str, ...]

    @property
    def name(self) -> str:
        return Path(self.config).stem

    @property
    def percent(self) -> float:
        """Trainable parameters of the backbone in per cent of all of it."""
        return 100 * self.trainable_backbone / self.backbone


def run_demo(config: str, work_dir: str | None = None, tell: Callable[[str], None] = print) -> Result:
    """Train a config on the digits, draw pictures, and sum it up.

    Args:
        config: A config whose data are the digits.
        work_dir: Where everything goes; an earlier demo in it is replaced. Default: work_dirs/demo/<config name>.
        tell: Takes each line about what goes on.

    Raises:
        UserError: The config is not for the digits, or the work dir holds something else than a demo.
    """
    start = time.monotonic()
    cfg = read_config(config)
    _prepare_data(cfg, config, tell)
    folder = _fresh_folder(Path(work_dir or Path('work_dirs', 'demo', Path(config).stem)), config, tell)
    tell(f'training: {cfg.train_cfg.max_epochs} epochs of {config}; the full log goes to {folder}/console.log')
    with _output_to(folder / 'console.log'):
        runner = train(
            config,
            work_dir=str(folder),
            cfg_options=dict(custom_hooks=[dict(type='mmpeft.mm.running.progress.ProgressHook')]),
        )
    _draw(runner, folder)
    result = _sum_up(runner, config, folder, time.monotonic() - start)
    (folder / MARKER).write_text(json.dumps(asdict(result), indent=1), encoding='utf-8')
    return result


def summary(result: Result) -> str:
    """The result of a demo for people."""
    minutes, seconds = divmod(round(result.seconds), 60)
    lines = [
        f'{result.name}',
        f'  box AP       {100 * result.ap:.1f}   (AP50 {100 * result.ap50:.1f}) on {result.images} validation images',
        f'  trainable    {result.trainable_backbone:,} of the {result.backbone:,} parameters of the backbone'
        f' ({result.percent:.1f} %), and {result.trainable - result.trainable_backbone:,} of the detector',
        f'  time         {result.seconds:.0f} seconds ({minutes} min {seconds} s), evaluation and pictures included',
        f'  files        {result.files[0]}',
        *(f'               {file}{_size(Path(file))}' for file in result.files[1:]),
    ]
    return '\n'.join(lines)


def _size(path: Path) -> str:
    """The size of a file with weights, to be read behind its name."""
    return f' ({path.stat().st_size / 1e6:.1f} MB)' if path.suffix in WEIGHTS else ''


def comparison(results: Sequence[Result]) -> str:
    """Several results side by side."""
    rows = [('', 'box AP', 'AP50', 'trainable in the backbone', 'seconds')]
    for result in results:
        share = f'{result.trainable_backbone:,} ({result.percent:.1f} %)'
        rows.append((result.name, f'{100 * result.ap:.1f}', f'{100 * result.ap50:.1f}', share, f'{result.seconds:.0f}'))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return '\n'.join('  '.join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows)


def _prepare_data(cfg: Config, config: str, tell: Callable[[str], None]) -> None:
    dataset = cfg.get('train_dataloader', {}).get('dataset', {})
    if dataset.get('type') != 'mmpeft.DigitsDataset':
        raise UserError(f'{config} does not train on the digits of the demo; use mmpeft train for it.')
    manifest = prepare_digits(dataset.data_root)
    parts = [
        f'{part["images"]} {split} images with {part["instances"]} digits' for split, part in manifest['counts'].items()
    ]
    tell(f'data: {dataset.data_root}, {", ".join(parts)} ({"made just now" if manifest["made"] else "there already"})')


def _fresh_folder(folder: Path, config: str, tell: Callable[[str], None]) -> Path:
    if folder.is_dir() and any(folder.iterdir()):
        if not (folder / MARKER).is_file():
            raise UserError(f'{folder} holds files that no demo made; name another --work-dir.')
        tell(f'{folder} holds an earlier demo, which this one replaces')
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARKER).write_text(json.dumps({'config': config}), encoding='utf-8')
    return folder


@contextmanager
def _output_to(path: Path):
    """Send what Python prints, warnings included, to a file; errors still reach the caller."""
    with path.open('w', encoding='utf-8') as file, redirect_stdout(file), redirect_stderr(file):
        yield


def _draw(runner: Runner, folder: Path) -> None:
    title = Path(runner.cfg.filename).stem
    scalars = runner.message_hub.log_scalars
    loss = scalars['train/loss'].data[0]
    ap, ap50 = (scalars[f'val/coco/bbox_{name}'].data[0] for name in ('mAP', 'mAP_50'))
    last = len(loss) // runner.max_epochs
    epochs = [
        e for e in range(1, runner.max_epochs + 1) if e % runner.train_loop.val_interval == 0 or e == runner.max_epochs
    ]
    at = [epoch * last for epoch in epochs]
    draw_curves(loss, list(zip(at, ap, ap50, strict=True)), folder / 'curves.png', title)
    count = len(runner.val_dataloader.dataset)
    numbers = range(0, count, max(1, count // EXAMPLES))[:EXAMPLES]
    text = f'{title}: {len(numbers)} of {count} validation images, boxes with a score of at least {MIN_SCORE}'
    draw_examples(_examples(runner, numbers), folder / 'predictions.png', text)


def _examples(runner: Runner, numbers: Sequence[int]) -> list[Example]:
    """Validation images with their ground truth and what the model finds in them."""
    dataset, model = runner.val_dataloader.dataset, bare_model(runner)
    classes = dataset.metainfo['classes']
    model.eval()
    with torch.no_grad():
        samples = model.test_step(pseudo_collate([dataset[number] for number in numbers]))
    examples = []
    for number, sample in zip(numbers, samples, strict=True):
        info, found = dataset.get_data_info(number), sample.pred_instances.cpu().numpy()
        keep = found.scores >= MIN_SCORE
        corners = np.array([instance['bbox'] for instance in info['instances']], float).reshape(-1, 4)
        truth = Boxes(corners, [classes[instance['bbox_label']] for instance in info['instances']])
        labels = [classes[label] for label in found.labels[keep]]
        with Image.open(info['img_path']) as image:
            pixels = np.asarray(image.convert('RGB'))
        examples.append(Example(pixels, truth, Boxes(found.bboxes[keep], labels, found.scores[keep])))
    return examples


def _sum_up(runner: Runner, config: str, folder: Path, seconds: float) -> Result:
    model, scalars = bare_model(runner), runner.message_hub.log_scalars
    counts, backbone = count_parameters(model), count_parameters(model.backbone)
    names = ['predictions.png', 'curves.png', Path(runner.cfg.filename).name, 'console.log', MARKER]
    checkpoints = sorted(path.name for path in folder.iterdir() if path.suffix in WEIGHTS)
    return Result(
        config=config,
        ap=float(scalars['val/coco/bbox_mAP'].current()),
        ap50=float(scalars['val/coco/bbox_mAP_50'].current()),
        images=len(runner.val_dataloader.dataset),
        trainable=counts.trainable,
        trainable_backbone=backbone.trainable,
        backbone=backbone.total,
        seconds=seconds,
        files=tuple(str(folder / name) for name in [*names[:2], *checkpoints, *names[2:]]),
    )
