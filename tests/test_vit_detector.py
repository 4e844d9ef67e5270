"""A plain ViT in a detector: the config of Mona on ViT, shrunk, on tiny data."""

from tiny_data import CLASSES, write_data

from mmpeft.mm.run import train

CONFIG = 'configs/mona_vit_coco.py'


def options(root) -> dict:
    """Keys that shrink the config to a few seconds."""
    arch = dict(_delete_=True, embed_dims=16, num_layers=4, num_heads=2, feedforward_channels=32)
    keys = {
        'model.backbone.backbone.arch': arch,
        'model.backbone.backbone.out_indices': [0, 1, 2, 3],
        'model.backbone.backbone.img_size': 64,
        'model.backbone.backbone.init_cfg': None,
        'model.backbone.allow_random_base': True,
        'model.neck.0.embed_dim': 16,
        'model.neck.0.norm_cfg.num_groups': 4,
        'model.neck.1.in_channels': [16] * 4,
        'model.roi_head.bbox_head.num_classes': 2,
        'model.roi_head.mask_head.num_classes': 2,
        'model.train_cfg.rpn_proposal.max_per_img': 16,
        'model.train_cfg.rcnn.sampler.num': 8,
        'train_cfg.max_epochs': 1,
        'train_dataloader.dataset.pipeline.3.transforms.0.0.scales': [(64, 64)],
        'train_dataloader.dataset.pipeline.3.transforms.1.0.scales': [(64, 64)],
        'train_dataloader.dataset.pipeline.3.transforms.1.2.scales': [(64, 64)],
        'val_dataloader.dataset.pipeline.1.scale': (64, 64),
        'val_evaluator.ann_file': f'{root}/annotations/train.json',
    }
    for split in ('train', 'val'):
        loader = f'{split}_dataloader'
        keys |= {f'{loader}.num_workers': 0, f'{loader}.persistent_workers': False}
        keys |= {f'{loader}.dataset.data_root': str(root), f'{loader}.dataset.ann_file': 'annotations/train.json'}
        keys |= {f'{loader}.dataset.data_prefix.img': 'train', f'{loader}.dataset.metainfo.classes': CLASSES}
    return keys


def test_a_plain_vit_trains_and_is_evaluated_as_a_detector(tmp_path):
    root = write_data(tmp_path / 'data')
    train(CONFIG, work_dir=str(tmp_path / 'work'), cfg_options=options(root))
    log = next((tmp_path / 'work').glob('*/*.log')).read_text()
    assert 'coco/segm_mAP' in log and '1 Mona after_attn, 1 Mona after_ffn' in log
