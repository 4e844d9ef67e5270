"""Names by which hosts know what they do not import; tests/test_private.py tells which of them is gone."""

# The module of the functions that an `init_cfg` applies to every layer.
INITIALISERS = 'mmengine.model.weight_init'
# The module of the forward that mmengine's activation checkpointing puts in the place of a layer's own.
CHECKPOINTING = 'mmengine.runner.activation_checkpointing'
# Linear layers: torch's, and mmcv's, which is the same but for empty input in torch 1.4.
LINEAR = ('torch.nn.modules.linear.Linear', 'mmcv.cnn.bricks.wrappers.Linear')
# Layer norms of channels that lie last, or that their host moves there.
LAYER_NORMS = (
    'torch.nn.modules.normalization.LayerNorm',
    'mmpretrain.models.utils.norm.LayerNorm2d',
    'timm.layers.norm.LayerNorm',
)
