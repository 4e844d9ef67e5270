"""A tiny segmentor on a pretrained Swin, on images of which two are held out."""

from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from tiny_data import SEGMENTOR, tool, write_data

IMAGES = 6
HELD = ('1', '4')
TRAIN = 'train_dataloader.dataset.dataset.ann_file'
HELDOUT = 'heldout.ann_file'


def write_segmentor(root: Path, **texts: str) -> Path:
    """A config whose base is a file, and the lists ``rest.txt`` and ``held.txt`` of its images; with extra lines."""
    write_data(root / 'data', images=IMAGES)
    rest = [str(i) for i in range(IMAGES) if str(i) not in HELD]
    for name, chosen in (('rest', rest), ('held', HELD)):
        (root / f'data/{name}.txt').write_text(''.join(f'{i}\n' for i in chosen))
    text = SEGMENTOR.replace('{root}', f'{root}/data').replace(' allow_random_base=True,', '')
    # To serialize a few images would collect the garbage of all tests.
    text = text.replace("type='BaseSegDataset',", "type='BaseSegDataset', serialize_data=False,")
    stock = Config.fromstring(text, '.py').backbone
    torch.manual_seed(0)
    base = MODELS.build({**stock, 'type': 'mmseg.SwinTransformer'})
    torch.save(base.state_dict(), root / 'base.pth')
    text = text.replace(
        "type='SwinTransformer',",
        f"type='SwinTransformer', init_cfg=dict(type='Pretrained', checkpoint='{root}/base.pth'),",
    )
    lines = [
        "train_dataloader['dataset']['dataset'] = dict(dataset, ann_file='rest.txt')",
        "heldout = dict(ann_file='held.txt')",
    ]
    path = root / 'segmentor.py'
    path.write_text('\n'.join([text, *lines, *texts.values()]) + '\n')
    return path


def train(config: Path, work_dir: Path, *arguments: str) -> None:
    tool('train').main([str(config), '--work-dir', str(work_dir), *arguments])
