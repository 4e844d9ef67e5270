# Mona in a frozen Swin-T: instance segmentation on COCO 2017 with Mask R-CNN, for small cards.
#
# Trains the adapters (1,408,128 parameters, 4.87 % of the backbone with them), and the neck and all heads.
#
#   1 GPU:   ACCUMULATE=8 python tools/train.py configs/mona_swin_coco_mask-rcnn_tiny.py --amp
#   8 GPUs:  tools/dist_train.sh configs/mona_swin_coco_mask-rcnn_tiny.py 8 --amp
#
# No published result. The recipe is that of mona_swin_coco.py, transferred.
#
# Any other method: `--cfg-options model.backbone.method.type=LoRA`. What else to know: mona_swin_coco.py. Not run
# here.
_base_ = [
    './_base_/models/mask-rcnn_swin-t_fpn.py',
    './_base_/datasets/coco_instance_ms-crop.py',
    './_base_/schedules/adamw_3x.py',
    './_base_/default_runtime.py',
]

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmpeft.AdaptedBackbone',
        method=dict(type='Mona'),
        backbone={{_base_.model.backbone}},
    )
)
optim_wrapper = dict(constructor='mmpeft.AdapterOptimWrapperConstructor')
