# CVPT with 10 prompts in a frozen ViT-L: semantic segmentation on ADE20K with SETR-PUP.
#
# Trains the prompts (245,760 parameters, 0.08 % of the backbone with them), and all heads.
#
#   1 GPU:   ACCUMULATE=8 python tools/train.py configs/cvpt_vit_ade20k.py
#   8 GPUs:  tools/dist_train.sh configs/cvpt_vit_ade20k.py 8
#
# Published: 13.43 M parameters trained, heads included (derived); the mIoU with 10 prompts could not be found.
#
# The published segmentation code reads the prompts through a cross-attention that is random and frozen, because
# nothing in it copies the pretrained weights there. Here it has the weights of the self-attention of its block, as
# the paper says and as the authors' classification code does; `--cfg-options model.backbone.method.share=False` is
# the published code.
#
# The base is timm's ViT-L/16 at 384 px; its names become mmsegmentation's as it loads, and training is refused if a
# tensor of the base is not in the file.
#
# The batch is 16 images: 8 GPUs with 2 each. On 1 GPU it is accumulated, and the SyncBN of the heads sees 2 images.
# Mixed precision (`--amp`) needs a GPU: mmengine refuses it elsewhere. Not run here.
_base_ = [
    './_base_/models/setr-pup_vit-l.py',
    './_base_/datasets/ade20k.py',
    './_base_/schedules/sgd_160k.py',
    './_base_/segmentation_runtime.py',
]

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmpeft.AdaptedBackbone',
        method=dict(type='CVPT', num_prompts=10),
        backbone={{_base_.model.backbone}},
    )
)
optim_wrapper = dict(constructor='mmpeft.AdapterOptimWrapperConstructor')
