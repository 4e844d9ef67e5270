"""The published recipes, as one table: what each config at the top of ``configs`` has to resolve to.

Sources: the configs and logs of github.com/Leiyi-Hu/mona at 5deeac9 for COCO, VOC and ADE20K on Swin, those of
github.com/Lingyun0419/CVPT at 2fc9877 for ADE20K on ViT-L, those of github.com/VisionXLab/STAR-MMRotate at 465c63f for
DOTA and STAR, whose number of GPUs is not published: 1 is assumed. The counts follow from the methods' definitions;
those of Mona, Adapter, AdaptFormer, LoRA and full fine-tuning on Swin-L are printed in the authors' logs.
"""

NO_DECAY = ('absolute_pos_embed', 'norm', 'relative_position_bias_table')
SWIN_B = dict(embed_dims=128, depths=[2, 2, 18, 2], num_heads=[4, 8, 16, 32], window_size=7)
SWIN_L = dict(embed_dims=192, depths=[2, 2, 18, 2], num_heads=[6, 12, 24, 48], window_size=7)
SWIN_T = dict(embed_dims=96, depths=[2, 2, 6, 2], num_heads=[3, 6, 12, 24], window_size=7)
VIT_B = dict(arch='base', img_size=384, patch_size=16)
DINOV2_B = dict(type='mmpretrain.VisionTransformer', arch='base', patch_size=16, layer_scale_init_value=1e-5)
DINOV2_B |= dict(drop_path_rate=0.1, out_type='featmap', out_indices=(2, 5, 8, 11))
DINOV3_B = dict(type='mmpretrain.TIMMBackbone', model_name='vit_base_patch16_dinov3', features_only=True)
DINOV3_B |= dict(dynamic_img_pad=True, drop_path_rate=0.1, out_indices=(2, 5, 8, 11))
VIT_L = dict(img_size=(512, 512), patch_size=16, embed_dims=1024, num_layers=24, num_heads=16)
BASES = {
    'swin-t': 'swin_tiny_patch4_window7_224.pth',
    'swin-b': 'swin_base_patch4_window7_224_22k',
    'swin-l': 'swin_large_patch4_window7_224_22k',
    'vit-b': 'vit-base-p16_in21k-pre-3rdparty_ft-64xb64_in1k-384',
    'vit-l': 'jx_vit_large_p16_384',
    'dinov2-b': 'timm:https://dl.fbaipublicfiles.com/dinov2/dinov2_vitb14/dinov2_vitb14_pretrain.pth',
    'dinov3-b': 'hf://timm/vit_base_patch16_dinov3.lvd1689m/model.safetensors',
}

# One entry for each host and data set. `batch` is the number of images of an update, `gpus` those of the published run.
RECIPES = {
    'swin_coco': dict(
        model='CascadeRCNN',
        base='swin-b',
        backbone=SWIN_B | dict(drop_path_rate=0.3, out_indices=(0, 1, 2, 3)),
        optimizer=dict(type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05),
        keys=dict.fromkeys(NO_DECAY, dict(decay_mult=0.0)),
        length=36,
        warmup=(500, 1e-3),
        decay=dict(type='MultiStepLR', milestones=[27, 33], gamma=0.1),
        batch=16,
        gpus=8,
    ),
    'swin_voc': dict(
        model='RetinaNet',
        base='swin-l',
        backbone=SWIN_L | dict(drop_path_rate=0.2, out_indices=(1, 2, 3)),
        optimizer=dict(type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05),
        keys=dict.fromkeys(NO_DECAY, dict(decay_mult=0.0)),
        length=4,
        warmup=None,
        decay=dict(type='MultiStepLR', milestones=[3], gamma=0.1),
        batch=2,
        gpus=2,
    ),
    'swin_ade20k': dict(
        model='EncoderDecoder',
        base='swin-l',
        backbone=SWIN_L | dict(drop_path_rate=0.3, out_indices=(0, 1, 2, 3)),
        optimizer=dict(type='AdamW', lr=6e-5, betas=(0.9, 0.999), weight_decay=0.01),
        keys=dict.fromkeys(NO_DECAY, dict(decay_mult=0.0)),
        length=160_000,
        warmup=(1500, 1e-6),
        decay=dict(type='PolyLR', power=1.0, eta_min=0.0),
        batch=16,
        gpus=8,
    ),
    'vit_ade20k': dict(
        model='EncoderDecoder',
        base='vit-l',
        backbone=VIT_L | dict(drop_rate=0.1, out_indices=(9, 14, 19, 23), patch_bias=True, interpolate_mode='bilinear'),
        optimizer=dict(type='SGD', lr=1e-3, momentum=0.9, weight_decay=0.0),
        keys=dict(head=dict(lr_mult=10.0)),
        length=160_000,
        warmup=None,
        decay=dict(type='PolyLR', power=0.9, eta_min=1e-4),
        batch=16,
        gpus=8,
    ),
}
ROTATED = dict(
    base='swin-b',
    optimizer=dict(type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05),
    length=12,
    warmup=(500, 1 / 3),
    decay=dict(type='MultiStepLR', milestones=[8, 11], gamma=0.1),
    clip=35,
    batch=2,
    gpus=1,
)
THREE_STAGES = SWIN_B | dict(drop_path_rate=0.2, out_indices=(1, 2, 3))
FOUR_STAGES = SWIN_B | dict(drop_path_rate=0.2, out_indices=(0, 1, 2, 3))
RULES = dict(keys=dict.fromkeys(NO_DECAY, dict(decay_mult=0.0)), constructor='mmpeft.AdapterOptimWrapperConstructor')
FRAMEWORKS = {
    # Published without rules for parameters: everything decays, the norms of adapters too.
    'h2rbox-v2': dict(
        model='H2RBoxV2Detector', backbone=THREE_STAGES, keys={}, constructor='DefaultOptimWrapperConstructor'
    ),
    'kld': dict(model='RetinaNet', backbone=THREE_STAGES, **RULES),
    'oriented-rcnn': dict(model='FasterRCNN', backbone=FOUR_STAGES, **RULES),
    # Not published: transferred.
    'roi-trans': dict(model='CascadeRCNN', backbone=FOUR_STAGES, **RULES),
}
RECIPES['swin_dota'] = ROTATED | FRAMEWORKS['h2rbox-v2'] | dict(optimizer=ROTATED['optimizer'] | dict(lr=5e-5))
RECIPES['swin_star'] = ROTATED | FRAMEWORKS['oriented-rcnn']
# Our extension: the schedule of Mona on COCO.
RECIPES['vit_coco'] = RECIPES['swin_coco'] | dict(model='MaskRCNN', base='vit-b', backbone=VIT_B)
# Our extension: the schedules of the baselines on Swin, without decay for a ViT's norms, scales, positions and token.
NO_DECAY_VIT = (*NO_DECAY, 'cls_token', 'pos_embed', 'ln1', 'ln2', 'gamma1', 'gamma2')
DINOV2 = dict(base='dinov2-b', keys=dict.fromkeys(NO_DECAY_VIT, dict(decay_mult=0.0)))
RECIPES['dinov2_coco'] = RECIPES['swin_coco'] | DINOV2 | dict(model='MaskRCNN', backbone=DINOV2_B | dict(img_size=1024))
RECIPES['dinov2_ade20k'] = RECIPES['swin_ade20k'] | DINOV2 | dict(backbone=DINOV2_B | dict(img_size=512))
NO_DECAY_EVA = (*NO_DECAY, 'cls_token', 'reg_token', 'gamma_1', 'gamma_2')
DINOV3 = dict(base='dinov3-b', keys=dict.fromkeys(NO_DECAY_EVA, dict(decay_mult=0.0)), backbone=DINOV3_B)
RECIPES['dinov3_coco'] = RECIPES['swin_coco'] | DINOV3 | dict(model='MaskRCNN')
RECIPES['dinov3_ade20k'] = RECIPES['swin_ade20k'] | DINOV3

METHODS = {
    'mona': dict(type='Mona'),
    'full': dict(type='Full'),
    'frozen': dict(type='Frozen'),
    'bitfit': dict(type='BitFit', tables=True),
    'normtuning': dict(type='NormTuning'),
    'partial': dict(type='Partial'),
    'adapter': dict(type='Adapter'),
    'adaptformer': dict(type='AdaptFormer'),
    'lora': dict(type='LoRA'),
    'lorand': dict(type='LoRand'),
    'ssf': dict(type='SSF'),
    'cvpt': dict(type='CVPT'),
    'vpt': dict(type='VPT', deep=True),
}

# What STAR-MMRotate does otherwise: torch's own starting values, and both adapters of a block on its branches.
ROTATED_METHODS = {
    'mona': dict(init='torch'),
    'adapter': dict(init='torch', sites=['attn_branch', 'ffn_branch']),
    'adaptformer': dict(init='torch'),
}

# Where a config differs from the entry of its host and data set.
MONA_ADE20K = dict(lr=3e-4, drop_path_rate=0.2)
WITHOUT_PATCHES = '^(?!patch_embed)'
TINY = dict(model='MaskRCNN', base='swin-t', backbone=SWIN_T | dict(drop_path_rate=0.2, out_indices=(0, 1, 2, 3)))
DIFFERENCES = {
    'mona_swin_ade20k': MONA_ADE20K,
    'full_swin_ade20k_lr3e-4': MONA_ADE20K,
    'mona_swin_coco_mask-rcnn_tiny': TINY,
    'full_swin_coco_mask-rcnn_tiny': TINY,
    'cvpt_vit_ade20k': dict(method=dict(num_prompts=10)),
    'cvpt_vit_ade20k_p200': dict(method=dict(num_prompts=200)),
    **{
        f'{method}_swin_{data}_{framework}': ROTATED | FRAMEWORKS[framework]
        for method in ('mona', 'full')
        for data, frameworks in (
            ('dota', ('oriented-rcnn', 'kld', 'roi-trans')),
            ('star', ('h2rbox-v2', 'kld', 'roi-trans')),
        )
        for framework in frameworks
    },
    'mona_swin_dota_oriented-rcnn_train-val': ROTATED | FRAMEWORKS['oriented-rcnn'],
    **{f'{name}_swin_voc': dict(method=dict(blocks=WITHOUT_PATCHES)) for name in ('full', 'bitfit', 'normtuning')},
}

# Trainable parameters of the backbone.
COUNTS = {
    'swin_coco': dict(
        mona=3_667_456,
        full=86_745_016,
        frozen=0,
        bitfit=201_656,
        normtuning=59_392,
        partial=12_601_632,
        adapter=3_107_328,
        adaptformer=1_553_664,
        lora=3_080_192,
        lorand=2_370_816,
        ssf=269_056,
        cvpt=10 * 12_032,  # prompts times the channels of all blocks
    ),
    'swin_ade20k': dict(
        mona=5_267_712,
        full=194_998_164,
        frozen=0,
        bitfit=302_484,
        normtuning=89_088,
        partial=28_339_632,
        adapter=4_659_456,
        adaptformer=2_329_728,
        lora=4_620_288,
        lorand=3_543_936,
        ssf=403_584,
        cvpt=10 * 18_048,
    ),
    'vit_ade20k': dict(
        cvpt=245_760,
        vpt=245_760,
        frozen=0,
        mona=24 * (133 * 1024 + 9728) * 2,
        ssf=22 * 1024 * 24 + 2 * 1024,  # without the pair of the last norm, which SETR has not
    ),
    'vit_coco': dict(mona=2_684_928),
    'dinov2_coco': dict(
        mona=2_684_928,
        ssf=22 * 768 * 12 + 2 * 2 * 768,
        cvpt=10 * 768 * 12,
        lora=12 * 2 * 64 * 2 * 768,
        # The published 86.58 million, but no token for masks, patches of 16 px for 14, 64 x 64 positions for 37 x 37.
        full=86_580_480 - 768 + 768 * 3 * (16**2 - 14**2) + 768 * (64**2 - 37**2),
        frozen=0,
    ),
}
COUNTS['dinov2_ade20k'] = COUNTS['dinov2_coco'] | dict(full=88_812_288 - 768 * (64**2 - 32**2))
COUNTS['dinov3_ade20k'] = COUNTS['dinov3_coco'] = COUNTS['dinov2_coco'] | dict(
    ssf=22 * 768 * 12 + 2 * 768,  # maps of blocks come without the last norm
    # Tokens, patches, and in each block attention without biases of qkv, norms, layer scales and the feed-forward.
    full=5 * 768 + 768 * (3 * 16**2 + 1) + 12 * (768 * (4 * 768 + 1) + 6 * 768 + 768 * (8 * 768 + 5)),
)
# On VOC there is no output norm of the first stage, and the patch embedding (9,792 parameters, 384 of them biases, 384
# of its norm) is frozen in full fine-tuning, BitFit and NormTuning too.
COUNTS['swin_voc'] = COUNTS['swin_ade20k'] | dict(
    full=194_998_164 - 384 - 9_792,
    bitfit=302_484 - 192 - 384,
    normtuning=89_088 - 384 - 384,
    ssf=403_584 - 384,
)
# The published runs of H2RBox-v2 have no output norm of the first stage either: 256 parameters, 128 of them biases.
COUNTS['swin_star'] = COUNTS['swin_coco']
COUNTS['swin_dota'] = COUNTS['swin_coco'] | dict(
    full=86_745_016 - 256, bitfit=201_656 - 128, normtuning=59_392 - 256, ssf=269_056 - 256
)
COUNTS_OF_VARIANTS = {
    **{f'full_swin_dota_{framework}': 86_745_016 for framework in ('oriented-rcnn', 'roi-trans')},
    **{f'full_swin_star_{framework}': 86_745_016 - 256 for framework in ('h2rbox-v2', 'kld')},
    'mona_swin_coco_mask-rcnn_tiny': 1_408_128,
    'full_swin_coco_mask-rcnn_tiny': 27_520_698,
    'cvpt_vit_ade20k_p200': 4_915_200,
}


def expected(name: str) -> dict:
    """The recipe of the config ``name``, with its method."""
    method, host, data, *_ = name.split('_')
    recipe = RECIPES[f'{host}_{data}'] | dict(method=METHODS[method])
    changes = dict(DIFFERENCES.get(name, {}))
    if data in ('dota', 'star'):
        recipe['method'] = recipe['method'] | ROTATED_METHODS.get(method, {})
    recipe['method'] = recipe['method'] | changes.pop('method', {})
    if 'lr' in changes:
        recipe['optimizer'] = recipe['optimizer'] | dict(lr=changes.pop('lr'))
    if 'drop_path_rate' in changes:
        recipe['backbone'] = recipe['backbone'] | dict(drop_path_rate=changes.pop('drop_path_rate'))
    return recipe | changes


def count(name: str) -> int | None:
    """The trainable parameters of the backbone of the config ``name``, where a source gives them."""
    method, host, data, *_ = name.split('_')
    return COUNTS_OF_VARIANTS.get(name, COUNTS[f'{host}_{data}'].get(method))
