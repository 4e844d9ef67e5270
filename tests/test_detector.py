"""A real detector of mmdet on tiny real files."""

import json

import cv2
import mmengine.optim.optimizer.amp_optimizer_wrapper as amp
import numpy as np
import pytest
import torch
from mmdet.apis import inference_detector, init_detector
from mmengine.config import Config
from mmengine.registry import MODELS
from mmengine.runner import Runner
from tiny import MONA, SWIN, trained, weights, wrapped

import mmpeft

HOOK = dict(type='mmpeft.MonaHook', bottleneck=4)
FPN = dict(
    type='FPN', in_channels=[8, 16, 32, 64], out_channels=8, start_level=1, add_extra_convs='on_output', num_outs=5
)
ANCHORS = dict(
    type='AnchorGenerator', octave_base_scale=4, scales_per_octave=1, ratios=[1.0], strides=[8, 16, 32, 64, 128]
)


def retinanet(num_classes: int, backbone: dict) -> dict:
    head = dict(
        type='RetinaHead',
        num_classes=num_classes,
        in_channels=8,
        stacked_convs=1,
        feat_channels=8,
        anchor_generator=ANCHORS,
        bbox_coder=dict(type='DeltaXYWHBBoxCoder'),
        loss_cls=dict(type='FocalLoss', use_sigmoid=True),
        loss_bbox=dict(type='L1Loss'),
    )
    assigner = dict(type='MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0, ignore_iof_thr=-1)
    return dict(
        type='RetinaNet',
        data_preprocessor=dict(type='DetDataPreprocessor', pad_size_divisor=32),
        backbone=backbone,
        neck=FPN,
        bbox_head=head,
        train_cfg=dict(assigner=assigner, sampler=dict(type='PseudoSampler'), allowed_border=-1, pos_weight=-1),
        test_cfg=dict(nms_pre=50, score_thr=0.0, nms=dict(type='nms', iou_threshold=0.5), max_per_img=5),
    )


def detector_config(folder, model: dict, **changes) -> Config:
    """Two iterations on four images of 64 pixels."""
    pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='LoadAnnotations', with_bbox=True),
        dict(type='PackDetInputs'),
    ]
    dataset = dict(
        type='CocoDataset',
        data_root=str(folder / 'data'),
        ann_file='boxes.json',
        data_prefix=dict(img=''),
        metainfo=dict(classes=('a', 'b')),
        pipeline=pipeline,
    )
    keys = ('img_id', 'img_shape', 'scale_factor', 'ori_shape')
    test = [
        dict(type='LoadImageFromFile'),
        dict(type='Resize', scale=(64, 64)),
        dict(type='PackDetInputs', meta_keys=keys),
    ]
    cfg = dict(
        default_scope='mmdet',
        work_dir=str(folder / 'work'),
        model=model,
        train_dataloader=dict(
            batch_size=2, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False), dataset=dataset
        ),
        test_dataloader=dict(dataset=dict(dataset, pipeline=test, test_mode=True)),
        test_cfg=dict(),
        test_evaluator=dict(type='CocoMetric', ann_file=str(folder / 'data/boxes.json')),
        train_cfg=dict(by_epoch=False, max_iters=2),
        optim_wrapper=dict(optimizer=dict(type='AdamW', lr=1e-3)),
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=2, by_epoch=False)),
        randomness=dict(seed=1),
    )
    return Config(cfg | changes)


@pytest.fixture
def folder(tmp_path):
    data = tmp_path / 'data'
    data.mkdir()
    random = np.random.default_rng(0)
    for i in range(4):
        cv2.imwrite(str(data / f'{i}.png'), random.integers(0, 255, (64, 64, 3), dtype=np.uint8))
    boxes = [
        dict(id=i + 1, image_id=i, category_id=1 + i % 2, bbox=[8, 8, 32, 32], area=1024, iscrowd=0) for i in range(4)
    ]
    images = [dict(id=i, file_name=f'{i}.png', width=64, height=64) for i in range(4)]
    categories = [dict(id=1, name='a'), dict(id=2, name='b')]
    (data / 'boxes.json').write_text(json.dumps(dict(images=images, annotations=boxes, categories=categories)))
    return tmp_path


@pytest.mark.parametrize('num_classes', [2, 5])
@pytest.mark.parametrize('way', ['hook', 'wrapper'])
def test_load_from_a_stock_detector_gives_base_neck_and_what_fits_of_the_head(folder, way, num_classes):
    stock = MODELS.build(retinanet(num_classes, SWIN))
    torch.save(dict(meta={}, state_dict=stock.state_dict()), folder / 'stock.pth')
    backbone = SWIN if way == 'hook' else wrapped()
    cfg = detector_config(folder, retinanet(2, backbone), load_from=str(folder / 'stock.pth'), custom_hooks=[])
    cfg.custom_hooks = [HOOK] if way == 'hook' else [dict(type='mmpeft.AdapterReportHook')]
    cfg.optim_wrapper.optimizer = dict(type='SGD', lr=0.0)
    state = trained(cfg).model.state_dict()
    expected = {name: value for name, value in stock.state_dict().items() if value.shape == state[name].shape}
    assert all(torch.equal(value, state[name]) for name, value in expected.items())
    assert ('bbox_head.retina_cls.weight' in expected) == (num_classes == 2)


def test_init_detector_rebuilds_the_hooks_model_from_its_work_dir(folder):
    cfg = detector_config(folder, retinanet(2, SWIN), custom_hooks=[dict(HOOK, allow_random_base=True)])
    model = trained(cfg).model
    dumped = next((folder / 'work').glob('*.py'))
    loaded = init_detector(str(dumped), str(folder / 'work/iter_2.pth'), device='cpu', palette='random')
    assert type(loaded.backbone) is type(model.backbone)
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in weights(model).items())
    image = cv2.imread(str(folder / 'data/0.png'))
    assert len(inference_detector(loaded, image).pred_instances) > 0


def test_mixed_precision_trains_the_adapters(folder, monkeypatch):
    # mmengine's AMP wrapper insists on a GPU; what it does is the same autocast on the CPU.
    monkeypatch.setattr(amp, 'is_cuda_available', lambda: True)
    optimizer = dict(type='SGD', lr=0.1)
    optim_wrapper = dict(type='AmpOptimWrapper', dtype='bfloat16', loss_scale=1.0, optimizer=optimizer)
    cfg = detector_config(folder, retinanet(2, wrapped(allow_random_base=True)), optim_wrapper=optim_wrapper)
    cfg.custom_hooks = [dict(type='mmpeft.AdapterReportHook')]
    runner = Runner.from_cfg(cfg)
    before = weights(runner.model.backbone)
    after = runner.train().backbone.state_dict()
    up = 'stages.0.blocks.0.adapters.after_attn.up.weight'
    assert not torch.equal(after[up], before[up]) and after[up].dtype == torch.float32


def test_the_named_form_trains_in_a_detector(folder):
    backbone = dict(SWIN, type='mmpeft.MonaSwinTransformer', bottleneck=MONA['bottleneck'], allow_random_base=True)
    runner = trained(detector_config(folder, retinanet(2, backbone)))
    assert mmpeft.count_parameters(runner.model.backbone).trainable == mmpeft.count_parameters(runner.model).adapter
