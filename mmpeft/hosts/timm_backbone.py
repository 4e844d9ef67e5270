"""mm's wrapper of a timm model, whose names are timm's own behind one level or two."""

import re
from typing import Any

from torch import Tensor, nn

from mmpeft.hosts.backbone import Backbone
from mmpeft.hosts.call import current_call
from mmpeft.hosts.host import Host, adapt_as, is_one_of, qualified_name
from mmpeft.sites import BRANCH_SITES, STREAM_SITES

TIMM = r'timm_model\.(?:model\.)?'
STAGE = rf'{TIMM}layers[._]\d+'
VIT = rf'{TIMM}blocks\.\d+'
BLOCK = rf'(?:{VIT}|{STAGE}\.blocks\.\d+)'
MODELS = (
    'timm.models.vision_transformer.VisionTransformer',
    'timm.models.eva.Eva',
    'timm.models.swin_transformer.SwinTransformer',
    'timm.models.swin_transformer_v2.SwinTransformerV2',
    'timm.models._features.FeatureListNet',  # the stages of a Swin, which has no model around them then
)
PATCHES = ('timm.layers.patch_embed.PatchEmbed',)


class GridSource(Host):
    """timm's patch embedding, which tells the blocks the grid of what it returns."""

    def forward(self, x: Tensor) -> Tensor:
        current_call().hw_shape = self.dynamic_feat_size(x.shape[2:])
        return super().forward(x)


class TimmBackbone(Backbone):
    """A ViT, EVA (DINOv3) or Swin of timm; ``features_only`` adds a level to its names, or flattens one.

    Files know its tensors by timm's own names. The norm after the last block is in no form that returns maps.
    """

    block = BLOCK
    saves_memory = 'recompute_ffn=True beside method'
    beyond = rf'{TIMM}(?:fc_)?norm\.(?:weight|bias)'
    places = {
        'input': VIT,
        **dict.fromkeys((*STREAM_SITES, *BRANCH_SITES), BLOCK),
        'patch_embed': rf'{TIMM}patch_embed\.proj',
        'patch_norm': rf'{TIMM}patch_embed\.norm',
        'norm1': rf'{BLOCK}\.norm1',
        'qkv': rf'{BLOCK}\.attn',
        'proj': rf'{BLOCK}\.attn\.proj',
        'norm2': rf'{BLOCK}\.norm2',
        'fc1': rf'{BLOCK}\.mlp\.fc1(?:_[gx])?',
        'fc2': rf'{BLOCK}\.mlp\.fc2',
        'merge_norm': rf'{STAGE}\.downsample\.norm',
        'reduction': rf'{STAGE}\.downsample\.reduction',
        'output_norm': rf'{TIMM}(?:fc_)?norm',
    }

    @classmethod
    def check(cls, module: nn.Module) -> None:
        model = _model(module)
        if not is_one_of(type(model), MODELS) or not cls.blocks_of(module):
            raise ValueError(f'its timm model is a {qualified_name(type(model))}; known: {", ".join(MODELS[:-1])}')
        if not is_one_of(type(model.patch_embed), PATCHES):
            raise ValueError(f'its patch_embed is a {qualified_name(type(model.patch_embed))}; known: {PATCHES[0]}')

    @classmethod
    def known_as(cls, name: str) -> str:
        return re.sub(r'^layers_', 'layers.', re.sub(f'^{TIMM}', '', name))

    @classmethod
    def shared_sizes(cls, module: nn.Module) -> dict[str, Any]:
        return dict(super().shared_sizes(module), patch_size=_model(module).patch_embed.proj.kernel_size)

    def extra_tokens(self) -> int:
        return getattr(_model(self), 'num_prefix_tokens', 0)

    def wire(self) -> None:
        adapt_as(_model(self).patch_embed, GridSource)

    def norm_before(self, name: str) -> nn.LayerNorm | None:
        """Patch merging of Swin has one, that of Swin V2 has its norm behind it."""
        if not name.endswith('.downsample.reduction'):
            return None
        norm = self.get_submodule(name.removesuffix('reduction') + 'norm')
        return norm if norm.normalized_shape[0] == self.get_submodule(name).in_features else None

    def option_inside(self, bias: str) -> str | None:
        if not re.fullmatch(rf'{BLOCK}\.attn\.qkv\.bias', bias):
            return None
        attn = qualified_name(type(self.get_submodule(bias.removesuffix('.qkv.bias'))))
        # EVA's own attention has no bias of keys, which counts where they rotate.
        return 'qkv_bias attn_type=rope' if attn == 'timm.models.eva.EvaAttention' else 'qkv_bias'

    def expect_base(self) -> None:
        """As any, but timm may have filled the base itself: ``pretrained`` and ``checkpoint_path`` mark it so."""
        given = vars(self)['_is_init']
        super().expect_base()
        self.values_given(self.missing if given else ())

    def _check_checkpointing(self) -> None:
        super()._check_checkpointing()
        if any(getattr(module, 'grad_checkpointing', False) for module in self.modules()):
            raise RuntimeError(
                'set_grad_checkpointing of timm computes a block again without what its forward was told, such as the '
                f'grid. Leave it off and set {self.saves_memory} instead.'
            )

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs):
        own = {self.known_as(name): prefix + name for name in self.state_dict()}
        for key in [key for key in state_dict if key.startswith(prefix)]:
            name = own.get(self.known_as(key.removeprefix(prefix)), key)
            if name != key:
                state_dict[name] = state_dict.pop(key)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


def _model(backbone: nn.Module) -> nn.Module:
    """The timm model itself, or what is left of it in a form that returns maps."""
    return getattr(backbone.timm_model, 'model', backbone.timm_model)
