"""Test-time augmentation: what it makes of a config."""

from copy import deepcopy

from mmengine.config import Config, ConfigDict

from mmpeft.mm.checks import UserError, evaluators, leaves


def use_tta(cfg: Config) -> None:
    """Wrap the model and the test data of ``cfg`` for test-time augmentation, in place.

    What is done to an image stands in the config, as ``tta_pipeline``. mmdet has a default, a horizontal flip.

    Raises:
        UserError: The model finds masks or rotated boxes, which nothing merges, or the config says too little.
    """
    if cfg.default_scope == 'mmrotate':
        raise UserError('--tta merges upright boxes and label maps; for rotated boxes there is none. Leave it out.')
    datasets = [dataset for _, dataset in leaves('test_dataloader.dataset', cfg.test_dataloader.dataset)]
    if cfg.default_scope == 'mmdet':
        _refuse_masks(cfg)
        _set_flip(cfg, datasets[0].pipeline)
    missing = [key for key in ('tta_model', 'tta_pipeline') if key not in cfg]
    if missing:
        raise UserError(
            f'--tta needs {" and ".join(missing)} in the config; {cfg.default_scope} has no default for it.'
        )
    cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)
    for dataset in datasets:
        dataset.pipeline = cfg.tta_pipeline


def _refuse_masks(cfg: Config) -> None:
    scored = any('segm' in metric.get('metric', ()) for metric in evaluators(cfg, 'test'))
    in_roi = bool((cfg.model.get('roi_head') or {}).get('mask_head'))
    if not (scored or in_roi or any(cfg.model.get(key) for key in ('mask_head', 'panoptic_head'))):
        return
    hint = (
        ' Leave the masks out with --cfg-options model.roi_head.mask_head=None test_evaluator.metric=bbox.'
        if in_roi
        else ''
    )
    raise UserError(f'--tta merges boxes only, and this model finds masks.{hint}')


def _set_flip(cfg: Config, pipeline: list) -> None:
    keys = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor', 'flip', 'flip_direction')
    # The image as it is comes first: metrics take the truth from the first view.
    flips = [[dict(type='RandomFlip', prob=0.0), dict(type='RandomFlip', prob=1.0)]]
    augmentation = dict(type='TestTimeAug', transforms=[*flips, [dict(type='PackDetInputs', meta_keys=keys)]])
    if 'tta_model' not in cfg:
        nms = dict(type='nms', iou_threshold=0.5)
        cfg.tta_model = dict(type='DetTTAModel', tta_cfg=dict(nms=nms, max_per_img=100))
    if 'tta_pipeline' not in cfg:
        cfg.tta_pipeline = [*deepcopy(pipeline[:-1]), augmentation]
