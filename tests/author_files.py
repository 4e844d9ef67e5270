"""Files in the layouts of four published codes, configs of the same models, and what comes of converting them."""

import copy
import types
from pathlib import Path

import torch
from authors import Cross, Mona, TimmViT, randomised
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import load_checkpoint
from test_merging import FCN, RETINANET, SEGMENTOR
from tiny import MONA, SIZES, SWIN, wrapped
from torch import nn

import mmpeft
from mmpeft.mm.running.converting import Converted, convert_checkpoint

EXACT = 1e-10
SSF, CVPT = dict(type='SSF'), dict(type='CVPT', num_prompts=6)
SWIN_2 = dict(SWIN, window_size=2)
LN = dict(type='LN', eps=1e-6)
MMSEG_VIT = dict(
    type='VisionTransformer',
    embed_dims=16,
    num_layers=3,
    num_heads=2,
    img_size=64,
    patch_size=16,
    mlp_ratio=2,
    norm_cfg=LN,
    patch_bias=True,
    final_norm=True,
    out_indices=[2],
)
MMPRETRAIN_VIT = dict(
    type='VisionTransformer',
    arch=dict(embed_dims=16, num_layers=3, num_heads=2, feedforward_channels=32),
    img_size=64,
    patch_size=16,
)
MMPRETRAIN_SWIN = dict(type='SwinTransformer', arch=SIZES, window_size=2, img_size=64, drop_path_rate=0.0)
VIT_HEAD = dict(type='VisionTransformerClsHead', num_classes=5, in_channels=16)
LINEAR_HEAD = dict(type='LinearClsHead', num_classes=5, in_channels=64)
VIT_SEGMENTOR = dict(SEGMENTOR, decode_head=FCN)


def config_of(folder: Path, scope: str, backbone: dict, method: dict, rest: dict) -> str:
    model = dict(copy.deepcopy(rest), backbone=wrapped(backbone, method))
    Config(dict(default_scope=scope, model=model)).dump(folder / 'config.py')
    return str(folder / 'config.py')


def detector(folder: Path, method: dict = MONA, **changes) -> str:
    return config_of(folder, 'mmdet', dict(SWIN_2, **changes), method, RETINANET)


def classifier(folder: Path, backbone: dict, head: dict, method: dict) -> str:
    neck = dict(neck=dict(type='GlobalAveragePooling')) if head is LINEAR_HEAD else {}
    return config_of(folder, 'mmpretrain', backbone, method, dict(type='ImageClassifier', head=head, **neck))


def prefixed(state: dict, prefix: str = 'backbone.') -> dict:
    return {prefix + name: tensor for name, tensor in state.items()}


def stock_model(scope: str, backbone: dict, rest: dict) -> nn.Module:
    init_default_scope(scope)
    model = MODELS.build(dict(copy.deepcopy(rest), backbone=copy.deepcopy(backbone)))
    for name, buffer in model.named_buffers():
        if name.endswith(('running_mean', 'running_var')):
            buffer.uniform_(0.5, 1.5)
    return randomised(model, 8)


def rest_of(model: nn.Module) -> dict:
    return {name: tensor for name, tensor in model.state_dict().items() if not name.startswith('backbone.')}


def save(folder: Path, content: dict) -> str:
    torch.save(content, folder / 'theirs.pth')
    return str(folder / 'theirs.pth')


def converted(folder: Path, config: str, content: dict, **options) -> Converted:
    return convert_checkpoint(config, save(folder, content), str(folder / 'ours'), **options)


def loaded(config: str, files: Converted) -> nn.Module:
    """The model of the config with the adapter file, whose base is found beside it."""
    cfg = Config.fromfile(config)
    init_default_scope(cfg.default_scope)
    torch.manual_seed(99)
    model = MODELS.build(cfg.model)
    if files.backbone_only:
        mmpeft.load_adapters(model.backbone, files.adapters)
    else:
        load_checkpoint(model, str(files.adapters))
    return model.double().eval()


def image(*size: int) -> torch.Tensor:
    return torch.randn(2, 3, *size, dtype=torch.float64)


def flat(out) -> list[torch.Tensor]:
    return [out] if torch.is_tensor(out) else [tensor for part in out for tensor in flat(part)]


@torch.no_grad()
def distance(ours, theirs) -> float:
    return max(((a - b).norm() / b.norm()).item() for a, b in zip(flat(ours), flat(theirs), strict=True))


def timm_vit(method: dict) -> TimmViT:
    theirs = randomised(TimmViT(method['type']))
    if method is CVPT:
        theirs.copy_attention()
    return theirs


def mona_swin_of_star() -> nn.Module:
    """A stock detector in whose backbone each block has two Mona layers in the way of STAR-MMRotate."""

    def forward(block, x, hw_shape):
        x = block.mona1(x + block.attn(block.norm1(x), hw_shape), *hw_shape)
        return block.mona2(block.ffn(block.norm2(x), identity=x), *hw_shape)

    init_default_scope('mmdet')
    model = MODELS.build(dict(copy.deepcopy(RETINANET), backbone=SWIN_2))
    for stage in model.backbone.stages:
        for block in stage.blocks:
            dim = block.norm1.normalized_shape[0]
            block.mona1, block.mona2 = Mona(dim), Mona(dim)
            block.forward = types.MethodType(forward, block)
    return randomised(model)


def cvpt_segmentor(share: bool) -> nn.Module:
    """A stock segmentor whose blocks read prompts in the way of CVPT's segmentation code."""

    def forward(block, x):
        x = block.attn(block.ln1(x), identity=x)
        x = x + block.cross(x, prompts[block.number])
        return block.ffn(block.ln2(x), identity=x)

    init_default_scope('mmseg')
    model = MODELS.build(dict(copy.deepcopy(VIT_SEGMENTOR), backbone=copy.deepcopy(MMSEG_VIT)))
    model.backbone.Prompt_Tokens = nn.Parameter(torch.zeros(3, 6, 16))
    for number, block in enumerate(model.backbone.layers):
        block.cross, block.number = Cross(16, 2), number
        block.forward = types.MethodType(forward, block)
    randomised(model)
    prompts = model.backbone.Prompt_Tokens
    for block in model.backbone.layers if share else ():
        attn = block.attn.attn
        block.cross.copy(attn.in_proj_weight, attn.in_proj_bias, attn.out_proj)
    return model
