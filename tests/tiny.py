"""Tiny real models and data for the tests: stock Swin of three libraries, a small detector, and a Runner."""

from functools import partial

import mmdet.models
import mmpretrain.models
import mmseg.models
import torch
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.logging import MessageHub, MMLogger
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, MODELS
from mmengine.runner import Runner
from mmengine.visualization import Visualizer
from torch import nn

SIZES = dict(embed_dims=8, depths=(1, 2, 1, 1), num_heads=(1, 1, 2, 2))
SWIN = dict(type='SwinTransformer', window_size=3, drop_path_rate=0.0, **SIZES)
MONA = dict(type='Mona', bottleneck=4)
SWINS = {
    'mmdet': mmdet.models.SwinTransformer,
    'mmseg': mmseg.models.SwinTransformer,
    'mmpretrain': mmpretrain.models.SwinTransformer,
}
LIBRARIES = list(SWINS)
VIT = dict(embed_dims=16, num_layers=3, num_heads=2)


def swin(library: str = 'mmdet', **options) -> nn.Module:
    """A stock Swin of five blocks with all four outputs."""
    options = {**{key: value for key, value in SWIN.items() if key != 'type'}, **options}
    if library != 'mmpretrain':
        return SWINS[library](**options)
    arch = {key: options.pop(key) for key in SIZES}
    with_cp = options.pop('with_cp', False)
    stages = dict(block_cfgs=dict(with_cp=with_cp))
    return SWINS[library](arch=arch, out_indices=(0, 1, 2, 3), pad_small_map=True, stage_cfgs=stages, **options)


def mmseg_vit(**options) -> nn.Module:
    """mmseg's ViT of three blocks with a class token."""
    size = dict(img_size=32, patch_size=8, mlp_ratio=2, out_indices=(0, 2))
    return mmseg.models.VisionTransformer(**VIT, **{**size, **options})


def mmpretrain_vit(cls: str = 'VisionTransformer', **options) -> nn.Module:
    """mmpretrain's ViT of three blocks with a class token; outputs are feature maps."""
    size = dict(img_size=32, patch_size=8, out_indices=(0, 2), out_type='featmap')
    size |= dict(arch=dict(VIT, feedforward_channels=32))
    return getattr(mmpretrain.models, cls)(**{**size, **options})


def convnext(**options) -> nn.Module:
    """mmpretrain's ConvNeXt of five blocks with all four outputs as feature maps."""
    arch = dict(depths=(1, 2, 1, 1), channels=(8, 8, 16, 16))
    size = dict(out_indices=(0, 1, 2, 3), gap_before_final_norm=False, layer_scale_init_value=0.5)
    return mmpretrain.models.ConvNeXt(arch=arch, **{**size, **options})


def timm_vit(name: str = 'vit_tiny_patch16_224', **options) -> nn.Module:
    """A ViT or EVA of timm of three blocks; outputs are feature maps."""
    arch = dict(embed_dim=16, depth=3, num_heads=2, mlp_ratio=2, init_values=0.5)
    size = dict(img_size=32, patch_size=8, dynamic_img_size=True, dynamic_img_pad=True)
    return filled(timm_backbone(name, **{'out_indices': (0, 2), **arch, **size, **options}))


def timm_swin(name: str = 'swin_tiny_patch4_window7_224', **options) -> nn.Module:
    """A Swin of timm of five blocks with all four outputs."""
    arch = dict(embed_dim=8, depths=(1, 2, 1, 1), num_heads=(1, 1, 2, 2), window_size=3, drop_path_rate=0.0)
    backbone = timm_backbone(name, strict_img_size=False, **{'feature_cls': 'getter', **arch, **options})
    getattr(backbone.timm_model, 'model', backbone.timm_model).patch_embed.dynamic_img_pad = True
    return filled(backbone)


def timm_backbone(name: str, **options) -> nn.Module:
    return mmpretrain.models.TIMMBackbone(name, **{'features_only': True, **options})


def filled(backbone: nn.Module) -> nn.Module:
    """The same with values for what starts at zero or next to it, such as biases of places and layer scales."""
    for parameter in backbone.parameters():
        if parameter.abs().max() < 1e-3:
            nn.init.normal_(parameter, std=0.5)
    return backbone


def swin_v2(**options) -> nn.Module:
    """mmpretrain's Swin V2 of five blocks with all four outputs; one of them ends in a third norm."""
    size = dict(window_size=3, drop_path_rate=0.0, out_indices=(0, 1, 2, 3), pad_small_map=True)
    size |= dict(arch=dict(SIZES, extra_norm_every_n_blocks=2))
    return filled(mmpretrain.models.SwinTransformerV2(**{**size, **options}))


# BEiT and MAE take images of one grid: the patches lie so that both sizes of the tests have it.
ONE_GRID = dict(img_size=(28, 42), patch_size=14, out_indices=(0, 2))


def mmseg_beit(cls: str = 'BEiT', drop_rate: float = 0.0, **options) -> nn.Module:
    """mmseg's BEiT or MAE of three blocks, which drop paths and nothing else."""
    return filled(getattr(mmseg.models, cls)(**{**VIT, **ONE_GRID, 'mlp_ratio': 2, 'init_values': 0.5, **options}))


def mmpretrain_beit(**options) -> nn.Module:
    """mmpretrain's BEiT of three blocks; outputs are feature maps."""
    return filled(mmpretrain_vit('BEiTViT', patch_cfg=dict(padding=0), **{**ONE_GRID, **options}))


def sam(**options) -> nn.Module:
    """SAM's encoder of three blocks, of which the second one attends to the whole map."""
    size = dict(img_size=32, patch_size=8, window_size=4, out_channels=8, out_indices=(0, 2))
    size |= dict(arch=dict(VIT, feedforward_channels=32, global_attn_indexes=[1]))
    return filled(mmpretrain.models.ViTSAM(**{**size, **options}))


def pyramid(cls: type, **options) -> nn.Module:
    """A SegFormer or PVT of five blocks with all four outputs; two stages reduce their keys."""
    sizes = dict(embed_dims=8, num_layers=(1, 2, 1, 1), num_heads=(1, 1, 2, 2), sr_ratios=(4, 2, 1, 1))
    return cls(**{**sizes, 'drop_path_rate': 0.0, **options})


def twins(library: str, cls: str, **options) -> nn.Module:
    """A Twins of five blocks with all four outputs and their norms."""
    sizes = dict(embed_dims=[8, 8, 16, 16], depths=[1, 2, 1, 1], num_heads=[1, 1, 2, 2], sr_ratios=[4, 2, 2, 1])
    sizes |= dict(patch_sizes=[4, 2, 2, 2], strides=[4, 2, 2, 2], mlp_ratios=[2, 2, 2, 2])
    options = dict(norm_after_stage=True, drop_path_rate=0.0) | options
    if library == 'mmseg':
        windows = dict(windiow_sizes=[3, 3, 3, 3]) if cls == 'SVT' else {}
        return getattr(mmseg.models.backbones, cls)(**sizes, **windows, **options)
    windows = dict(window_sizes=[3, 3, 3, 3]) if cls == 'SVT' else {}
    return getattr(mmpretrain.models, cls)(arch=sizes | windows, out_indices=(0, 1, 2, 3), **options)


HOSTS = {
    'mmdet Swin': lambda **options: swin('mmdet', **options),
    'mmseg Swin': lambda **options: swin('mmseg', **options),
    'mmpretrain Swin': lambda **options: swin('mmpretrain', **options),
    'mmseg ViT': mmseg_vit,
    'mmpretrain ViT': mmpretrain_vit,
    'mmpretrain DeiT': lambda **options: mmpretrain_vit('DistilledVisionTransformer', **options),
    'mmpretrain DINOv2': lambda **options: mmpretrain_vit(
        layer_scale_init_value=0.1, layer_cfgs=dict(ffn_type='swiglu_fused'), with_cls_token=True, **options
    ),
    'mmseg MiT': partial(pyramid, mmseg.models.MixVisionTransformer),
    'mmdet PVT': partial(
        pyramid,
        mmdet.models.PyramidVisionTransformer,
        pretrain_img_size=32,
        patch_sizes=(4, 2, 2, 1),
        strides=(4, 2, 2, 1),
    ),
    'mmdet PVTv2': partial(pyramid, mmdet.models.PyramidVisionTransformerV2),
    **{
        f'{library} {cls}': partial(twins, library, cls, qkv_bias=True)
        for library in ('mmseg', 'mmpretrain')
        for cls in ('PCPVT', 'SVT')
    },
    # Its tables of rotations take on the size of the last image, so it starts with that of the tests.
    'mmpretrain EVA02': lambda **options: mmpretrain_vit('ViTEVA02', img_size=(40, 48), **options),
    'mmpretrain SwinV2': swin_v2,
    'mmseg BEiT': mmseg_beit,
    'mmpretrain BEiT': mmpretrain_beit,
    'mmseg MAE': lambda **options: mmseg_beit('MAE', **options),
    'mmpretrain DeiT3': lambda **options: filled(mmpretrain_vit('DeiT3', **options)),
    'mmpretrain SAM': sam,
    'timm ViT': lambda **options: timm_vit('vit_tiny_patch16_224', reg_tokens=2, **options),
    'timm DINOv3': lambda **options: timm_vit('vit_base_patch16_dinov3', **options),
    'timm EVA': lambda **options: timm_vit('eva02_base_patch14_224', **options),
    'timm Swin': timm_swin,
    'timm SwinV2': lambda **options: timm_swin('swinv2_tiny_window8_256', **options),
}
CONVNEXTS = {
    'mmpretrain ConvNeXt': convnext,
    'mmpretrain ConvNeXtV2': partial(convnext, use_grn=True, linear_pw_conv=False),
}
BACKBONES = {**HOSTS, **CONVNEXTS}
# The options with which a host has a bias for every shift of SSF.
BIASED = {'mmseg ViT': dict(patch_bias=True), 'timm DINOv3': dict(qkv_bias=True, attn_type='rope')}
# Of all other backbones few tests are in the fast suite, see conftest.py.
OFTEN = ('Swin', 'ViT', 'DeiT', 'DINOv2', 'EVA02', 'ConvNeXt')
RARELY = [name for name in BACKBONES if name.split()[-1] not in OFTEN or name.startswith('timm ')]


def load(model: nn.Module, state: dict) -> None:
    """Load a state of the same names; Swin V2 computes its buffers anew and drops those that come."""
    missing, unexpected = model.load_state_dict(state, strict=False)
    anew = ('relative_position_index', 'relative_coords_table')
    assert not unexpected and all(name.endswith(anew) and type(model).__name__.endswith('V2') for name in missing)


def image(height: int = 30, width: int = 44, batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, 3, height, width)


def wrapped(backbone: dict = SWIN, method: dict = MONA, **options) -> dict:
    return dict(type='mmpeft.AdaptedBackbone', method=method, backbone=backbone, **options)


def pretrained(folder, **options) -> dict:
    """The config of a stock Swin whose weights lie in a file in ``folder``."""
    torch.manual_seed(77)
    path = folder / 'base.pth'
    torch.save({'state_dict': {f'backbone.{k}': v for k, v in swin().state_dict().items() if 'norm0' not in k}}, path)
    return dict(SWIN, init_cfg=dict(type='Pretrained', checkpoint=str(path)), **options)


@DATASETS.register_module()
class NoiseDataset(BaseDataset):
    """Sixteen images of noise, each drawn from its index."""

    def load_data_list(self) -> list[dict]:
        return [dict(index=i) for i in range(16)]

    def prepare_data(self, index: int) -> dict:
        generator = torch.Generator().manual_seed(index)
        return dict(inputs=torch.randn(3, 24, 24, generator=generator))


@MODELS.register_module()
class ToyModel(BaseModel):
    """A backbone and a linear head on the mean of its last output; the loss is a mean over the batch."""

    def __init__(self, backbone: dict, data_preprocessor=None, init_cfg=None) -> None:
        super().__init__(data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        self.backbone = MODELS.build(backbone)
        self.head = nn.Linear(64, 3)

    def forward(self, inputs, mode: str = 'tensor'):
        images = torch.stack(list(inputs)) if isinstance(inputs, list | tuple) else inputs
        logits = self.head(self.backbone(images)[-1].mean((2, 3)))
        return dict(loss=(logits - 1).square().mean()) if mode == 'loss' else logits


def runner_config(work_dir, backbone: dict, **changes) -> Config:
    """Train ToyModel for four iterations of two images."""
    cfg = dict(
        default_scope='mmdet',
        work_dir=str(work_dir),
        model=dict(type='ToyModel', backbone=backbone),
        train_dataloader=dict(
            batch_size=2,
            num_workers=0,
            sampler=dict(type='DefaultSampler', shuffle=True),
            dataset=dict(type='NoiseDataset'),
        ),
        train_cfg=dict(by_epoch=False, max_iters=4),
        optim_wrapper=dict(optimizer=dict(type='AdamW', lr=1e-2, weight_decay=0.05)),
        param_scheduler=[dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=3)],
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=4, by_epoch=False)),
        randomness=dict(seed=3),
        log_level='INFO',
    )
    return Config(cfg | changes)


def with_constructor(cfg: Config) -> Config:
    """The same, with the constructor that the one-line hook names where the config names none."""
    cfg.optim_wrapper.setdefault('constructor', 'mmpeft.AdapterOptimWrapperConstructor')
    return cfg


def forget_runs() -> None:
    """Drop mmengine's objects that a run leaves behind by name, as a new process has none of them.

    They are named by the second, so a run would write into the log of another that started in the same one.
    """
    for cls in (MMLogger, MessageHub, Visualizer, *Visualizer.__subclasses__()):
        cls._instance_dict.clear()


def trained(cfg: Config) -> Runner:
    """Train as a new process would."""
    forget_runs()
    runner = Runner.from_cfg(cfg)
    runner.train()
    return runner


def weights(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)
