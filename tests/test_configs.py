import ast
import copy
import re
from pathlib import Path

import numpy as np
import pytest
import recipes
import torch
from mmdet.registry import DATASETS
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.config import Config, ConfigDict
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, PARAM_SCHEDULERS, init_default_scope
from mmengine.structures import InstanceData, PixelData
from mmseg.structures import SegDataSample
from shrunk import CONFIGS, TOP, WHOLE, config, listed, parsed, shrink
from tiny_data import MAIN
from zoo import counts, header

import mmpeft
from mmpeft.mm.checks import register_library

# The configs that name their parts; all others state a difference from one of these.
ROOTS = [name for name in TOP if '_base_ = [' in Path(f'configs/{name}.py').read_text()]


def resolved(cfg: Config, wanted: dict) -> dict:
    """The recipe in ``cfg``; of the backbone's keys only those that the table has."""
    backbone, wrapper = cfg.model.backbone.backbone, cfg.optim_wrapper
    warmups = [s for s in cfg.param_scheduler if s.type == 'LinearLR']
    (decay,) = [s for s in cfg.param_scheduler if s.type != 'LinearLR']
    length = cfg.train_cfg.get('max_epochs') or cfg.train_cfg.get('max_iters')
    assert decay.end == length and decay.by_epoch == ('max_epochs' in cfg.train_cfg)
    assert all(s.begin == 0 and not s.by_epoch for s in warmups)
    assert cfg.model.backbone.type == 'mmpeft.AdaptedBackbone'
    assert wrapper.type == 'OptimWrapper' and wrapper.accumulative_counts == 1
    return dict(
        model=cfg.model.type.removeprefix('mmdet.'),
        base=next((key for key, file in recipes.BASES.items() if file in backbone.init_cfg.checkpoint), None),
        backbone={key: backbone.get(key) for key in wanted['backbone']},
        method=cfg.model.backbone.method.to_dict(),
        optimizer=wrapper.optimizer.to_dict(),
        keys=wrapper.get('paramwise_cfg', {}).get('custom_keys', {}),
        length=length,
        warmup=(warmups[0].end, warmups[0].start_factor) if warmups else None,
        decay={key: decay[key] for key in wanted['decay']},
        constructor=wrapper.get('constructor'),
        clip=wrapper.get('clip_grad', {}).get('max_norm'),
        batch=cfg.auto_scale_lr.base_batch_size,
        gpus=cfg.auto_scale_lr.base_batch_size // cfg.train_dataloader.batch_size,
    )


def build_shrunk(name: str) -> None:
    cfg = copy.deepcopy(config(name))
    register_library(cfg.default_scope)
    init_default_scope(cfg.default_scope)
    widths = shrink(cfg)
    model = MODELS.build(cfg.model)
    trainable = {key for key, p in model.backbone.named_parameters() if p.requires_grad}
    assert trainable == mmpeft.trained_names(model.backbone)
    frozen = [key for key, p in model.named_parameters() if not p.requires_grad]
    assert all(key.startswith('backbone.') for key in frozen)
    assert bool(frozen) == (cfg.model.backbone.method != dict(type='Full'))
    outputs = model.backbone.eval()(torch.randn(1, 3, 64, 64))
    assert [out.shape[1] for out in outputs] == widths


@pytest.mark.parametrize('path', [p for p in CONFIGS if Path(p).stem not in TOP or Path(p).stem in ROOTS])
def test_every_config_parses_and_survives_being_dumped(path):
    cfg = parsed(path)
    assert Config.fromstring(cfg.pretty_text, '.py').to_dict() == cfg.to_dict()


@pytest.mark.parametrize('path', WHOLE)
def test_every_whole_config_opens_with_what_it_trains_and_the_command(path):
    text = header(path)
    assert text.startswith('# ') and f'tools/train.py {path}' in text
    assert re.search(r'^# Trains ', text, re.M)


@pytest.mark.parametrize('name', TOP)
def test_every_header_gives_commands_for_1_and_8_gpus_that_keep_the_batch(name):
    text, cfg = header(f'configs/{name}.py'), config(name)
    batch, each = cfg.auto_scale_lr.base_batch_size, cfg.train_dataloader.batch_size
    single = re.search(rf'1 GPU: +(?:ACCUMULATE=(\d+) )?python tools/train\.py configs/{re.escape(name)}\.py', text)
    assert int(single[1] or 1) * each == batch
    several = re.findall(rf'tools/dist_train\.sh configs/{re.escape(name)}\.py (\d+)(.*)', text)
    assert 8 in [int(gpus) for gpus, _ in several]
    for gpus, options in several:
        assert int(gpus) * each == batch or '--auto-scale-lr' in options


@pytest.mark.parametrize('name', TOP)
def test_every_header_says_what_is_published_and_that_it_was_not_run(name):
    text = ' '.join(header(f'configs/{name}.py').replace('#', ' ').split())
    assert 'Not run here' in text
    published = re.search(r'Published: (.*?\.)(?: |$)', text)
    unpublished = re.search(r'[Oo]ur extension|No published result|Recipe transferred, no published config', text)
    assert published or unpublished
    if published:
        assert re.search(r"\(|the paper's figure|not verified|could not be found", text[published.start() :])


@pytest.mark.parametrize('name', [name for name in TOP if '--amp' in header(f'configs/{name}.py')])
def test_headers_that_offer_mixed_precision_say_where_it_needs_a_gpu(name):
    text = header(f'configs/{name}.py')
    roots = [root for root in ROOTS if f'{root}.py' in text]
    assert any('needs a GPU' in ' '.join(header(f'configs/{root}.py').replace('#', '').split()) for root in roots)


@pytest.mark.parametrize('name', TOP)
def test_every_recipe_is_that_of_the_table(name):
    wanted = dict(clip=None, constructor='mmpeft.AdapterOptimWrapperConstructor') | recipes.expected(name)
    assert resolved(config(name), wanted) == wanted


@pytest.mark.parametrize('name', TOP)
def test_every_backbone_trains_the_parameters_of_the_table_and_of_its_header(name):
    trainable = counts(config(name)).trainable
    assert recipes.count(name) in (trainable, None)
    assert f'{trainable:,} parameters' in header(f'configs/{name}.py') or trainable == 0


def test_every_baseline_is_there_for_every_data_set_on_swin():
    methods = set(recipes.METHODS) - {'vpt'}
    for data in ('coco', 'voc', 'ade20k', 'dota', 'star'):
        assert {f'{method}_swin_{data}' for method in methods} <= set(TOP)


def test_a_method_swap_is_one_line():
    for name in set(TOP) - set(ROOTS) - {'mona_swin_ade20k'}:
        base, swap = ast.parse(Path(f'configs/{name}.py').read_text()).body
        assert base.targets[0].id == '_base_', name
        assert ast.unparse(swap).startswith('model = dict(backbone=dict(method=dict('), name


@pytest.mark.parametrize('name', ROOTS)
def test_accumulation_scales_all_that_counts_iterations(name, monkeypatch):
    plain = config(name)
    monkeypatch.setenv('ACCUMULATE', '8')
    cfg = Config.fromfile(f'configs/{name}.py')
    assert cfg.optim_wrapper.accumulative_counts == 8
    for before, after in zip(plain.param_scheduler, cfg.param_scheduler, strict=True):
        scale = 1 if before.by_epoch else 8
        assert (after.begin, after.end) == (scale * before.begin, scale * before.end)
        assert after.get('milestones') == before.get('milestones')
    iterations = plain.train_cfg.get('max_iters')
    if iterations is None:
        assert cfg.train_cfg == plain.train_cfg
    else:
        assert cfg.train_cfg.max_iters == 8 * iterations
        assert cfg.train_cfg.val_interval == 8 * plain.train_cfg.val_interval
        hooks = cfg.default_hooks, plain.default_hooks
        assert hooks[0].checkpoint.interval == 8 * hooks[1].checkpoint.interval


def rates_of_updates(accumulate: int, updates: list[int], monkeypatch) -> list[float]:
    """The learning rates with which the config of ADE20K makes the given updates."""
    monkeypatch.setenv('ACCUMULATE', str(accumulate))
    cfg = Config.fromfile('configs/full_swin_ade20k.py')
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=cfg.optim_wrapper.optimizer.lr)
    schedulers = [PARAM_SCHEDULERS.build(dict(s, optimizer=optimizer)) for s in cfg.param_scheduler]
    rates = []
    for _ in range(updates[-1] * accumulate + 1):
        rates.append(optimizer.param_groups[0]['lr'])
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()
    return [rates[update * accumulate] for update in updates]


def test_every_update_on_ade20k_has_the_rate_of_mmcv_1_accumulated_or_not(monkeypatch):
    updates = [0, 1, 750, 1500]
    warmups = [1e-6 + (1 - 1e-6) * min(update / 1500, 1) for update in updates]
    published = [6e-5 * (1 - update / 160_000) * warmup for update, warmup in zip(updates, warmups, strict=True)]
    assert rates_of_updates(1, updates, monkeypatch) == pytest.approx(published, rel=2e-3)
    assert rates_of_updates(3, updates, monkeypatch) == pytest.approx(published, rel=2e-3)


@pytest.mark.parametrize('name', ROOTS)
def test_roots_build_with_a_small_backbone_and_train_what_their_method_says(name):
    build_shrunk(name)


@pytest.mark.slow
@pytest.mark.parametrize('name', [name for name in TOP if name not in ROOTS])
def test_all_others_build_with_a_small_backbone(name):
    build_shrunk(name)


def samples(cfg: Config, side: int) -> list:
    """Two annotated images of ``side`` px, as the library of ``cfg`` wants them."""
    shapes = dict(
        img_shape=(side, side), ori_shape=(side, side), pad_shape=(side, side), batch_input_shape=(side, side)
    )
    found = []
    for _ in range(2):
        if cfg.default_scope == 'mmseg':
            sample = SegDataSample(metainfo=shapes)
            sample.gt_sem_seg = PixelData(data=torch.randint(0, 150, (1, side, side)))
        else:
            sample = DetDataSample(metainfo=shapes | dict(scale_factor=(1.0, 1.0)))
            boxes = torch.tensor([[8.0, 8.0, 40.0, 48.0], [20.0, 30.0, 60.0, 60.0]])
            if cfg.default_scope == 'mmrotate':
                from mmrotate.structures.bbox import RotatedBoxes

                boxes = RotatedBoxes(torch.tensor([[32.0, 32.0, 40.0, 20.0, 0.0], [70.0, 64.0, 24.0, 40.0, 0.0]]))
            masks = BitmapMasks(np.ones((2, side, side), np.uint8), side, side)
            sample.gt_instances = InstanceData(bboxes=boxes, labels=torch.tensor([4, 0]), masks=masks)
            sample.ignored_instances = InstanceData(bboxes=boxes[:0], labels=torch.zeros(0, dtype=torch.long))
        found.append(sample)
    return found


@pytest.mark.slow
@pytest.mark.parametrize('name', ROOTS)
def test_the_loss_of_every_root_reaches_all_that_trains_in_its_backbone(name):
    cfg = copy.deepcopy(config(name))
    register_library(cfg.default_scope)
    init_default_scope(cfg.default_scope)
    shrink(cfg)
    cfg.model.backbone.allow_random_base = True
    side = 128
    if 'crop_size' in cfg.model:
        cfg.model.crop_size = (side, side)
    model = revert_sync_batchnorm(MODELS.build(cfg.model))
    model.init_weights()
    model.train()
    inputs = torch.randn(2, 3, side, side)
    losses, _ = model.parse_losses(model(inputs, samples(cfg, side), mode='loss'))
    losses.backward()
    trainable = [(key, p) for key, p in model.backbone.named_parameters() if p.requires_grad]
    assert [key for key, p in trainable if p.grad is None] == []
    assert trainable and torch.isfinite(losses)


def test_mona_on_ade20k_and_full_fine_tuning_exist_under_each_others_recipe():
    def recipe(name):
        cfg = config(name)
        return cfg.optim_wrapper.optimizer, cfg.model.backbone.backbone.drop_path_rate

    assert recipe('mona_swin_ade20k_lr6e-5') == recipe('full_swin_ade20k')
    assert recipe('full_swin_ade20k_lr3e-4') == recipe('mona_swin_ade20k') != recipe('full_swin_ade20k')


def test_setr_has_the_published_heads_and_slides():
    model = config('cvpt_vit_ade20k').model
    heads = [model.decode_head, *model.auxiliary_head]
    assert [(h.type, h.in_index, h.num_convs, h.up_scale, h.loss_decode.loss_weight) for h in heads] == [
        ('SETRUPHead', 3, 4, 2, 1.0),
        *(('SETRUPHead', index, 2, 4, 0.4) for index in (0, 1, 2)),
    ]
    assert all(head.norm_cfg.type == 'SyncBN' and head.num_classes == 150 for head in heads)
    assert model.test_cfg == dict(mode='slide', crop_size=(512, 512), stride=(341, 341))


def test_upernet_has_the_published_heads():
    model = config('full_swin_ade20k').model
    decode, auxiliary = model.decode_head, model.auxiliary_head
    assert (decode.type, decode.channels, decode.norm_cfg.type) == ('UPerHead', 512, 'SyncBN')
    assert (auxiliary.type, auxiliary.in_index, auxiliary.norm_cfg.type) == ('FCNHead', 2, 'SyncBN')
    assert auxiliary.loss_decode.loss_weight == 0.4 and model.test_cfg == dict(mode='whole')


def rotated(name: str) -> Config:
    """The config of ``name`` with its heads in a list."""
    cfg = copy.deepcopy(config(name))
    cfg.heads = listed(cfg.model.get('bbox_head') or cfg.model.roi_head.bbox_head)
    return cfg


@pytest.mark.parametrize('name', [name for name in TOP if name.split('_')[2] in ('dota', 'star')])
def test_rotated_detectors_have_the_classes_of_their_data(name):
    cfg = rotated(name)
    dataset = cfg.train_dataloader.dataset.type
    assert dataset == ('mmpeft.STARDataset' if '_star' in name else 'DOTADataset')
    assert {head.num_classes for head in cfg.heads} == ({48} if '_star' in name else {15})


def test_the_round_classes_of_star_are_tanks_and_roundabouts():
    from mmpeft.mm.rotated.star import CLASSES

    (head,) = rotated('mona_swin_star_h2rbox-v2').heads
    assert [CLASSES[index] for index in head.rotation_agnostic_classes] == ['tank', 'roundabout']
    (head,) = rotated('mona_swin_dota').heads
    assert head.rotation_agnostic_classes == [1, 9, 11] and head.agnostic_resize_classes == [1]


def test_angles_and_losses_of_the_rotated_detectors_are_the_published_ones():
    angles = {'mona_swin_star_kld': 'oc', 'mona_swin_star': 'le90', 'mona_swin_star_h2rbox-v2': 'le90'}
    for name, angle in angles.items():
        (head,) = rotated(name).heads
        assert head.bbox_coder.angle_version == angle
    (head,) = rotated('mona_swin_star_kld').heads
    assert (head.loss_bbox.loss_type, head.loss_bbox.fun, head.loss_bbox.tau) == ('kld', 'log1p', 1)
    assert head.anchor_generator.type == 'FakeRotatedAnchorGenerator'


def test_h2rbox_v2_learns_from_horizontal_boxes_and_the_others_from_rotated_ones():
    for name in ('mona_swin_dota', 'mona_swin_star_h2rbox-v2', 'mona_swin_star', 'mona_swin_dota_kld'):
        pipeline = config(name).train_dataloader.dataset.pipeline
        types = [step.box_type_mapping.gt_bboxes for step in pipeline if step.type == 'ConvertBoxType']
        assert types == (['hbox', 'rbox'] if config(name).model.type == 'H2RBoxV2Detector' else ['rbox'])
        (flip,) = [step for step in pipeline if step.type == 'mmdet.RandomFlip']
        assert flip.prob == 0.75 and len(flip.direction) == 3


def test_rotated_recipes_that_nobody_published_say_so():
    frameworks = ('kld', 'oriented-rcnn', 'roi-trans')
    transferred = [f'mona_swin_dota_{framework}' for framework in frameworks] + ['mona_swin_star_roi-trans']
    transferred += [f'{method}_swin_dota' for method in ('normtuning', 'adaptformer', 'partial')]
    for name in transferred:
        assert 'Recipe transferred, no published config.' in header(f'configs/{name}.py'), name


VOC_XML = """<annotation><filename>{name}.jpg</filename><size><width>200</width><height>100</height></size>{objects}
</annotation>"""
VOC_BOX = (
    '<object><name>cat</name><difficult>{difficult}</difficult>'
    '<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>{x}</xmax><ymax>{y}</ymax></bndbox></object>'
)


@pytest.fixture
def voc(tmp_path):
    """Each year has an image with boxes of 9, 31, 32 and 90 px, and one whose only box is of 9 px."""
    for year in (2007, 2012):
        root = tmp_path / f'VOC{year}'
        for folder in ('Annotations', 'ImageSets/Main', 'JPEGImages'):
            (root / folder).mkdir(parents=True)
        names = [f'{year}_0', f'{year}_1']
        for name, sizes in zip(names, ([9, 31, 32, 90], [9]), strict=True):
            boxes = ''.join(VOC_BOX.format(difficult=0, x=size + 1, y=size + 1) for size in sizes)
            (root / f'Annotations/{name}.xml').write_text(VOC_XML.format(name=name, objects=boxes))
        (root / 'ImageSets/Main/trainval.txt').write_text('\n'.join(names) + '\n')
    return tmp_path


def boxes_that_train(dataset: ConfigDict, root: Path) -> tuple[int, int]:
    dataset = copy.deepcopy(dataset)
    for part in dataset.dataset.datasets:
        part.data_root = f'{root}/'
    built = DATASETS.build(dataset)
    infos = [built.get_data_info(index) for index in range(len(built))]
    return len(built), sum(not box['ignore_flag'] for info in infos for box in info['instances'])


def test_voc_trains_on_all_boxes_of_both_years_three_times_where_stock_drops_small_ones(voc):
    ours = config('mona_swin_voc').train_dataloader.dataset
    stock = parsed_stock_voc()
    assert boxes_that_train(ours, voc) == (3 * 4, 3 * 2 * 5)
    assert boxes_that_train(stock, voc) == (3 * 4, 3 * 2 * 2)


def parsed_stock_voc() -> ConfigDict:
    text = "_base_ = 'mmdet::_base_/datasets/voc0712.py'"
    return Config.fromstring(text, '.py').train_dataloader.dataset


def test_voc_is_measured_by_ap50_over_11_points_on_the_test_images_of_2007():
    cfg = config('mona_swin_voc')
    assert cfg.test_evaluator == dict(type='VOCMetric', metric='mAP', eval_mode='11points')
    assert cfg.test_dataloader.dataset.ann_file == 'VOC2007/ImageSets/Main/test.txt'


@pytest.fixture(scope='module')
def main():
    return parsed(MAIN)


def test_main_detector_is_the_published_cascade(main):
    model = main.model
    assert model.type == 'CascadeRCNN' and model.neck.out_channels == 256 and model.roi_head.num_stages == 3
    assert [head.type for head in model.roi_head.bbox_head] == ['Shared4Conv1FCBBoxHead'] * 3
    for head in model.roi_head.bbox_head:
        assert head.norm_cfg.type == 'SyncBN' and head.reg_decoded_bbox and not head.reg_class_agnostic
        assert head.loss_bbox == dict(type='GIoULoss', loss_weight=10.0) and head.num_classes == 80
    stds = [head.bbox_coder.target_stds for head in model.roi_head.bbox_head]
    assert stds == [[0.1, 0.1, 0.2, 0.2], [0.05, 0.05, 0.1, 0.1], [0.033, 0.033, 0.067, 0.067]]
    assert model.roi_head.mask_head.type == 'FCNMaskHead' and model.roi_head.mask_head.num_convs == 4
    assert [stage.assigner.pos_iou_thr for stage in model.train_cfg.rcnn] == [0.5, 0.6, 0.7]


def test_main_augmentation_is_multi_scale_with_crops(main):
    *_, flip, choice, _ = main.train_dataloader.dataset.pipeline
    assert flip == dict(type='RandomFlip', prob=0.5)
    (resize,), (small, crop, again) = choice.transforms
    assert resize.scales == [(s, 1333) for s in (480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800)] == again.scales
    assert small.scales == [(400, 1333), (500, 1333), (600, 1333)]
    assert crop.crop_size == (384, 600) and crop.crop_type == 'absolute_range' and crop.allow_negative_crop
    assert main.test_dataloader.dataset.pipeline[1] == dict(type='Resize', scale=(1333, 800), keep_ratio=True)
