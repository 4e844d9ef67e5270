# The ViT-B of DINOv3 in timm, with patches of 16 px and four maps. Queries and keys rotate by their places, so images
# may have any size; sides that are no multiple of 16 px are padded.
#
# The file is timm's on the Hugging Face hub, under Meta's DINOv3 license. A local copy takes its place as it is.
dinov3 = dict(
    type='mmpretrain.TIMMBackbone',
    model_name='vit_base_patch16_dinov3',
    features_only=True,
    dynamic_img_pad=True,
    drop_path_rate=0.1,
    out_indices=(2, 5, 8, 11),
    init_cfg=dict(
        type='Pretrained',
        checkpoint='hf://timm/vit_base_patch16_dinov3.lvd1689m/model.safetensors',
    ),
)
