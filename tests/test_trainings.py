"""The configs as they are train and evaluate: backbones and images are tiny, paths, formats and losses are real."""

import math
import re
import zipfile
from pathlib import Path

import mmdet
import mmrotate
import mmseg
import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import HOOKS, MODELS
from scene_trees import write_data
from shrunk import TOP, config, shrink
from test_stock_tools import stock
from tiny import same, weights

import mmpeft
from mmpeft.hosts import find_backbone
from mmpeft.mm.checks import register_library
from mmpeft.mm.runners import bare_model
from mmpeft.mm.running.run import test as evaluate
from mmpeft.mm.running.run import train
from mmpeft.mm.weights.checkpoints import read_checkpoint

FAMILIES = {
    'branches': ('mona', 'adapter', 'adaptformer'),
    'affine': ('ssf',),
    'prompts': ('cvpt', 'vpt'),
    'low rank': ('lora', 'lorand'),
    'tuned base': ('bitfit', 'normtuning', 'partial'),
    'plain': ('full', 'frozen'),
}
QUICK = {mmdet: 'mona_swin_coco', mmseg: 'ssf_swin_ade20k', mmrotate: 'mona_swin_dota_oriented-rcnn_train-val'}
CASES = [
    *QUICK.values(),
    'ssf_swin_coco',
    'lora_swin_coco',
    'bitfit_swin_coco',
    'full_swin_coco_mask-rcnn_tiny',
    'mona_vit_coco',
    'adapter_swin_voc',
    'cvpt_swin_voc',
    'frozen_swin_voc',
    'adaptformer_swin_ade20k',
    'cvpt_swin_ade20k',
    'lorand_swin_ade20k',
    'partial_swin_ade20k',
    'full_swin_ade20k',
    'mona_vit_ade20k',
    'ssf_vit_ade20k',
    'vpt_vit_ade20k',
    'bitfit_vit_ade20k',
    'frozen_vit_ade20k',
    'mona_swin_dota',
    'normtuning_swin_dota',
    'ssf_swin_star',
    'cvpt_swin_star',
    'lora_swin_star',
    'full_swin_star_roi-trans',
    'mona_swin_star_kld',
    'lora_dinov2_coco',
    'mona_dinov2_ade20k',
    *(f'{method}_dinov3_{task}' for method in ('frozen', 'full', 'lora', 'mona', 'ssf') for task in ('coco', 'ade20k')),
]
WIDTHS = [8, 16, 40, 64]
PYRAMID, TWINS = dict(embed_dims=8), dict(embed_dims=WIDTHS, num_heads=[1, 2, 5, 8])
# Stock configs of backbones that no config here has, and what makes them tiny; the maps of all have the same widths.
STOCK = {
    'mmdet/.mim/configs/pvt/retinanet_pvt-t_fpn_1x_coco.py': PYRAMID,
    'mmdet/.mim/configs/pvt/retinanet_pvtv2-b0_fpn_1x_coco.py': PYRAMID,
    'mmseg/.mim/configs/segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py': PYRAMID,
    'mmseg/.mim/configs/twins/twins_pcpvt-s_fpn_fpnhead_8xb4-80k_ade20k-512x512.py': TWINS,
    'mmseg/.mim/configs/twins/twins_svt-s_uperhead_8xb2-160k_ade20k-512x512.py': TWINS,
    'mmseg/.mim/configs/convnext/convnext-tiny_upernet_8xb2-amp-160k_ade20k-512x512.py': dict(
        arch=dict(depths=[1, 1, 1, 1], channels=WIDTHS)
    ),
}
# The same where the config names a file of pretraining.
PRETRAINED = (
    'mmseg/.mim/configs/beit/beit-base_upernet_8xb2-160k_ade20k-640x640.py',
    'mmseg/.mim/configs/mae/mae-base_upernet_8xb2-amp-160k_ade20k-512x512.py',
)
SCORES = dict(coco='coco/segm_mAP', voc='pascal_voc/mAP', ade20k='mIoU', dota='dota/mAP', star='star/mAP')
# Untrained detectors are sure of nothing, so no score is too low.
FEW = dict(max_per_img=16, nms_pre=64, num=16, score_thr=0.0, num_workers=0, persistent_workers=False)


@HOOKS.register_module()
class StartHook(Hook):
    """Keeps the weights with which training starts."""

    def before_train(self, runner) -> None:
        self.weights = weights(bare_model(runner))


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    """Every data set, in the folders that the configs name."""
    data = tmp_path_factory.mktemp('data')
    write_data(data)
    return data


@pytest.fixture
def folder(data, tmp_path, monkeypatch):
    """The current folder, with ``data`` in it."""
    (tmp_path / 'data').symlink_to(data)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_tiny(name: str, folder: Path, *hooks: dict) -> str:
    """Write the config for one short epoch: a tiny backbone, few boxes, narrow heads and small images."""
    cfg = _made_small(config(name), hooks)
    shrink(cfg)
    cfg.model.backbone.allow_random_base = True
    return _write_short(cfg, folder / f'{name}.py')


def write_stock(path: str, folder: Path, *hooks: dict) -> str:
    """The same for a stock config."""
    cfg = _made_small(Config.fromfile(Path(mmdet.__file__).parents[1] / path), hooks)
    cfg.model.backbone.update(STOCK[path], init_cfg=None, in_channels=3)
    cfg.optim_wrapper.update(type='OptimWrapper')  # mixed precision asks for a GPU
    cfg.optim_wrapper.pop('loss_scale', None)
    widths = WIDTHS
    if 'neck' in cfg.model:
        cfg.model.neck.in_channels, widths = WIDTHS, [cfg.model.neck.out_channels] * len(WIDTHS)
    if 'decode_head' in cfg.model:
        cfg.model.decode_head.in_channels = widths
    if 'auxiliary_head' in cfg.model:
        cfg.model.auxiliary_head.in_channels = WIDTHS[cfg.model.auxiliary_head.in_index]
    return _write_short(cfg, folder / Path(path).name)


def _made_small(cfg: Config, hooks: tuple[dict, ...]) -> Config:
    parts = cfg.to_dict()
    _make_small(parts)
    return Config(parts | dict(custom_hooks=list(hooks), randomness=dict(seed=0)))


def _write_short(cfg: Config, path: Path) -> str:
    if 'max_iters' in cfg.train_cfg:
        cfg.train_cfg.update(max_iters=2, val_interval=2)
        cfg.default_hooks.checkpoint.interval = 2
    else:
        cfg.train_cfg.max_epochs = 1
    for scheduler in cfg.param_scheduler:
        if scheduler.type == 'LinearLR':
            scheduler.end = 2
    cfg.dump(path)
    return path.name


def _make_small(node: dict | list) -> None:
    for key, value in node.items() if isinstance(node, dict) else enumerate(node):
        if key in FEW:
            node[key] = FEW[key]
        elif str(key).endswith('channels') and isinstance(value, int):
            node[key] = value // 4
        elif isinstance(value, tuple) and len(value) == 2 and all(isinstance(v, int) and v > 300 for v in value):
            node[key] = tuple(side // 8 for side in value)
        elif isinstance(value, dict | list):
            _make_small(value)


def checkpoint(name: str) -> str:
    (file,) = Path('work_dirs', name).glob('*.pth')
    return str(file)


def owners(names: set[str]) -> set[str]:
    """The modules that hold an adapter or a trained tensor of the base."""
    return {name.partition('.adapters.')[0] if mmpeft.is_adapter(name) else name.rpartition('.')[0] for name in names}


def check_what_moved(runner) -> set[str]:
    """Check that the head moved and in the backbone what its method trains; the names of what moved there."""
    (start,) = [hook.weights for hook in runner.hooks if isinstance(hook, StartHook)]
    model = bare_model(runner)
    moved = {key for key, tensor in model.state_dict().items() if not torch.equal(tensor, start[key])}
    in_backbone = {key.removeprefix('backbone.') for key in moved if key.startswith('backbone.')}
    trained = mmpeft.trained_names(model.backbone)
    assert in_backbone <= trained and owners(in_backbone) == owners(trained)
    assert len(moved) > len(in_backbone)
    return in_backbone


@pytest.mark.parametrize(
    'name', [name if name in QUICK.values() else pytest.param(name, marks=pytest.mark.slow) for name in CASES]
)
def test_a_config_trains_what_its_method_says_and_nothing_else_and_is_scored(name, folder):
    file = write_tiny(name, folder, dict(type='StartHook'))
    runner = train(file)
    check_what_moved(runner)

    scores = evaluate(file, checkpoint(name))
    if runner.val_loop is None:  # the labels are the server's
        (archive,) = Path('work_dirs').rglob('Task1.zip')
        assert len(zipfile.ZipFile(archive).namelist()) == 15
    else:
        score = SCORES[name.split('_')[2]]
        assert math.isfinite(scores[score]) and scores[score] == runner.message_hub.get_scalar(f'val/{score}').current()


@pytest.mark.slow
@pytest.mark.parametrize('path', STOCK, ids=lambda path: Path(path).stem)
def test_a_stock_config_trains_the_adapters_of_the_one_line_hook(path, folder):
    hook = dict(type='mmpeft.AdapterHook', method=[dict(type='Mona'), dict(type='LoRA')], allow_random_base=True)
    in_backbone = check_what_moved(train(write_stock(path, folder, hook, dict(type='StartHook'))))
    assert all(map(mmpeft.is_adapter, in_backbone))


@pytest.mark.slow
@pytest.mark.parametrize('path', PRETRAINED, ids=lambda path: Path(path).stem)
def test_a_stock_config_trains_adapters_on_the_file_that_it_names(path, folder):
    cfg = _made_small(
        Config.fromfile(Path(mmdet.__file__).parents[1] / path), (dict(type='mmpeft.MonaHook'), dict(type='StartHook'))
    )
    backbone, width, file = cfg.model.backbone, 16, Path(cfg.model.pretrained)
    backbone.update(embed_dims=width, num_heads=2, mlp_ratio=2, in_channels=3)
    cfg.model.neck.embed_dim = cfg.model.auxiliary_head.in_channels = width
    cfg.model.decode_head.in_channels = [width] * 4
    register_library('mmseg')
    base = MODELS.build(dict(backbone, type=f'mmseg.{backbone.type}'))
    fresh = find_backbone(type(base)).fresh
    file.parent.mkdir()
    torch.save({name: t for name, t in base.state_dict().items() if not re.fullmatch(fresh, name)}, file)
    runner = train(_write_short(cfg, folder / 'stock.py'))
    assert all(map(mmpeft.is_adapter, check_what_moved(runner)))
    after = bare_model(runner).backbone.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in base.state_dict().items())


def test_every_framework_on_every_host_and_every_family_in_every_library_has_its_case():
    family = {method: family for family, methods in FAMILIES.items() for method in methods}
    for group in (
        lambda name: (config(name).model.type, name.split('_')[1]),
        lambda name: (config(name).default_scope, family[name.split('_')[0]]),
    ):
        assert set(map(group, TOP)) == set(map(group, CASES))


@pytest.mark.slow
@pytest.mark.parametrize('library, name', QUICK.items(), ids=QUICK.values())
def test_the_librarys_own_tool_trains_a_config_to_the_same_bits(library, name, folder):
    # The hook draws one number less, and is in every run of our tool.
    file = write_tiny(name, folder, dict(type='mmpeft.ExactResumeHook'))
    stock(library, 'train', file, '--work-dir', folder / 'stock')
    train(file)
    (theirs,) = (folder / 'stock').glob('*.pth')
    assert same(*(read_checkpoint(path)['state_dict'] for path in (theirs, checkpoint(name))))
