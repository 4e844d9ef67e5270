"""The configs of this project, and one override for all of them that makes their backbones tiny."""

from functools import cache
from pathlib import Path

from mmengine.config import Config
from tiny_data import TINY_SWIN

REPOSITORY = Path.cwd()
CONFIGS = sorted(map(str, Path('configs').rglob('*.py')))
WHOLE = [path for path in CONFIGS if '_base_' not in Path(path).parts]
TOP = [Path(path).stem for path in WHOLE if len(Path(path).parts) == 2]
TINY_VIT = dict(embed_dims=16, num_heads=2, init_cfg=None)
TINY_TIMM = dict(embed_dim=16, num_heads=2, mlp_ratio=2, init_cfg=None)
TINY_ARCH = dict(embed_dims=16, num_layers=12, num_heads=2, feedforward_channels=32)


@cache
def parsed(path: str) -> Config:
    return Config.fromfile(REPOSITORY / path)


def config(name: str) -> Config:
    return parsed(f'configs/{name}.py')


def shrink(cfg: Config) -> list[int]:
    """Make the backbone of ``cfg`` tiny, fit what reads its maps, and return their channels."""
    backbone, model = cfg.model.backbone.backbone, cfg.model
    if backbone.type.endswith('TIMMBackbone'):
        backbone.update(TINY_TIMM)
        widths = [16] * len(backbone.out_indices)
    elif backbone.type.endswith('VisionTransformer'):
        backbone.update(dict(arch=TINY_ARCH, init_cfg=None) if 'arch' in backbone else TINY_VIT)
        widths = [16] * len(backbone.out_indices)
    else:
        backbone.update(TINY_SWIN)
        widths = [8 << index for index in backbone.out_indices]
    if 'neck' in model:
        for part in listed(model.neck):
            if part.type.endswith('Feature2Pyramid'):
                part.embed_dim, part.norm_cfg.num_groups = 16, 4
            else:
                part.in_channels = widths
    heads = [model.decode_head, *listed(model.auxiliary_head)] if 'decode_head' in model else []
    for part in heads:
        part.in_channels = widths if isinstance(part.in_index, list) else widths[part.in_index]
    return widths


def listed(part) -> list:
    return part if isinstance(part, list) else [part]
