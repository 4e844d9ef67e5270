import pytest
import torch
from mmengine.registry import MODELS, init_default_scope

from mmpeft.mm.checks import register_library

# timm's names for the tensors of mmseg's ViT.
NAMES = {
    'ffn.layers.0.0': 'mlp.fc1',
    'ffn.layers.1': 'mlp.fc2',
    'patch_embed.projection': 'patch_embed.proj',
    'layers.': 'blocks.',
    'ln1': 'norm1',
    'ln2': 'norm2',
    'attn.attn.in_proj_': 'attn.qkv.',
    'attn.attn.out_proj': 'attn.proj',
}


def build(checkpoint=None, **options):
    register_library('mmseg')
    init_default_scope('mmseg')
    vit = dict(type='VisionTransformer', img_size=(32, 32), embed_dims=16, num_layers=2, num_heads=2)
    vit |= dict(out_indices=(0, 1), patch_bias=True, interpolate_mode='bilinear') | options
    if checkpoint is not None:
        vit['init_cfg'] = dict(type='Pretrained', checkpoint=checkpoint)
    method = dict(type='CVPT', num_prompts=2)
    return MODELS.build(dict(type='mmpeft.AdaptedBackbone', method=method, backbone=vit))


@pytest.fixture
def timm_file(tmp_path):
    """A classifier as timm saves one, with random values, and the values under mmseg's names."""
    state = {name: torch.randn_like(tensor) for name, tensor in build().state_dict().items() if 'adapters' not in name}
    renamed = {}
    for name, tensor in state.items():
        for ours, theirs in NAMES.items():
            name = name.replace(ours, theirs)
        renamed[name] = tensor
    classifier = {'norm.weight': torch.ones(16), 'head.weight': torch.ones(3, 16), 'head.bias': torch.ones(3)}
    torch.save(renamed | classifier, tmp_path / 'vit.pth')
    return tmp_path / 'vit.pth', state


def test_a_file_of_timm_fills_every_tensor_of_the_base(timm_file):
    path, state = timm_file
    backbone = build(f'timm:{path}')
    backbone.init_weights()
    assert not backbone.missing
    loaded = backbone.state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in state.items())
    backbone.train()(torch.randn(1, 3, 32, 32))


def test_positions_are_resized_to_the_grid_of_the_task(timm_file):
    backbone = build(f'timm:{timm_file[0]}', img_size=(64, 64))
    backbone.init_weights()
    assert backbone.pos_embed.shape == (1, 17, 16) and not backbone.missing


def test_a_file_that_leaves_a_tensor_of_the_base_is_refused_in_training(timm_file):
    path, _ = timm_file
    state = torch.load(path)
    del state['patch_embed.proj.bias'], state['blocks.1.norm2.weight']
    torch.save(state, path)
    backbone = build(f'timm:{path}')
    backbone.init_weights()
    with pytest.raises(RuntimeError, match=r'2 tensors of the frozen base .*layers\.1\.ln2\.weight, patch_embed'):
        backbone.train()(torch.randn(1, 3, 32, 32))


def test_without_the_prefix_training_is_refused(timm_file):
    backbone = build(str(timm_file[0]))
    backbone.init_weights()
    with pytest.raises(RuntimeError, match='were never given pretrained weights'):
        backbone.train()(torch.randn(1, 3, 32, 32))


def test_a_file_of_another_layout_is_refused(tmp_path):
    torch.save({'layers.0.ln1.weight': torch.ones(16)}, tmp_path / 'mm.pth')
    with pytest.raises(ValueError, match=r"mm\.pth holds no ViT in the layout of timm.*give it without 'timm:'"):
        build(f'timm:{tmp_path / "mm.pth"}').init_weights()
