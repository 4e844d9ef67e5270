"""DINOv2: the authors' files and mmpretrain's, in a ViT with patches of another size."""

import copy

import pytest
import torch
import torch.nn.functional as F
from mmengine.registry import DATASETS, MODELS, init_default_scope
from shrunk import config
from tiny_data import CLASSES, write_data

import mmpeft
from mmpeft.fingerprint import digest
from mmpeft.hosts.patches import resample_kernel
from mmpeft.mm.checks import register_library

# The authors' names for the tensors of mmpretrain's ViT.
NAMES = {
    'attn.gamma1.weight': 'ls1.gamma',
    'ffn.gamma2.weight': 'ls2.gamma',
    'ffn.layers.0.0': 'mlp.fc1',
    'ffn.layers.1': 'mlp.fc2',
    'ffn.w': 'mlp.w',
    'patch_embed.projection': 'patch_embed.proj',
    'layers.': 'blocks.',
    '.ln1': '.norm1',
    '.ln2': '.norm2',
    'ln1.': 'norm.',
}
ARCH = dict(embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=32)
GIANT = dict(layer_cfgs=dict(ffn_type='swiglu_fused'))


def build(init_cfg=None, **options):
    register_library('mmdet')
    init_default_scope('mmdet')
    vit = dict(type='mmpretrain.VisionTransformer', arch=ARCH, img_size=64, patch_size=16, layer_scale_init_value=1e-5)
    vit |= dict(out_type='featmap', out_indices=(0, 1), init_cfg=init_cfg) | options
    return MODELS.build(dict(type='mmpeft.AdaptedBackbone', method=dict(type='Mona'), backbone=vit))


def official_names(state):
    renamed = {}
    for name, tensor in state.items():
        for ours, theirs in NAMES.items():
            name = name.replace(ours, theirs)
        renamed[name] = tensor
    return renamed | dict(mask_token=torch.zeros(1, 16))


def published(**options) -> dict:
    """A base with patches of 14 px and random values, under mmpretrain's names."""
    state = build(img_size=56, patch_size=14, **options).state_dict()
    return {name: torch.randn_like(tensor) for name, tensor in state.items() if 'adapters' not in name}


@pytest.fixture(params=['authors', 'mmpretrain', 'giant'])
def loaded(request, tmp_path):
    """The published values, the ``init_cfg`` that reads them from a file, and the options of the backbone."""
    options = GIANT if request.param == 'giant' else {}
    state, path = published(**options), tmp_path / 'dinov2.pth'
    if request.param == 'mmpretrain':
        torch.save(dict(state_dict={f'backbone.{name}': tensor for name, tensor in state.items()}), path)
        return state, dict(type='Pretrained', checkpoint=str(path), prefix='backbone'), options
    torch.save(official_names(state), path)
    return state, dict(type='Pretrained', checkpoint=f'timm:{path}'), options


def test_a_published_file_fills_every_tensor_of_the_base(loaded):
    state, init_cfg, options = loaded
    backbone = build(init_cfg, **options)
    backbone.init_weights()
    assert not backbone.missing
    found = backbone.state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in state.items() if not name.startswith('patch_embed'))
    kernel = resample_kernel(state['patch_embed.projection.weight'], (16, 16))
    assert torch.equal(found['patch_embed.projection.weight'], kernel)
    backbone.train()(torch.randn(1, 3, 64, 64))


def test_positions_are_resized_to_the_crop(loaded):
    _, init_cfg, options = loaded
    backbone = build(init_cfg, img_size=128, **options)
    backbone.init_weights()
    assert backbone.pos_embed.shape == (1, 65, 16) and not backbone.missing


def test_loading_twice_gives_the_same_fingerprint(loaded):
    _, init_cfg, options = loaded
    first, second = build(init_cfg, **options), build(init_cfg, img_size=128, **options)
    for backbone in (first, second, second):
        backbone.init_weights()
    assert mmpeft.fingerprint(first) == mmpeft.fingerprint(second)


def test_an_adapter_file_finds_the_base_again_from_patches_of_the_published_size(loaded, tmp_path):
    _, init_cfg, options = loaded
    trained, served = build(init_cfg, **options), build(init_cfg, **options)
    trained.init_weights()
    mmpeft.save_adapters(trained, tmp_path / 'task.safetensors')
    mmpeft.load_adapters(served, tmp_path / 'task.safetensors')
    x = torch.randn(1, 3, 64, 64)
    assert all(torch.equal(a, b) for a, b in zip(trained.eval()(x), served.eval()(x), strict=True))


def test_a_file_that_leaves_a_tensor_of_the_base_is_refused_in_training(tmp_path):
    state = official_names(published())
    del state['blocks.1.ls2.gamma'], state['norm.bias']
    torch.save(state, tmp_path / 'dinov2.pth')
    backbone = build(dict(type='Pretrained', checkpoint=f'timm:{tmp_path / "dinov2.pth"}'))
    backbone.init_weights()
    with pytest.raises(RuntimeError, match=r'2 tensors of the frozen base .*: layers\.1\.ffn\.gamma2\.weight, ln1\.bi'):
        backbone.train()(torch.randn(1, 3, 64, 64))


@pytest.mark.parametrize('name', ['register_tokens', 'reg_token'])
def test_registers_are_refused(tmp_path, name):
    torch.save(official_names(published()) | {name: torch.zeros(1, 4, 16)}, tmp_path / 'reg.pth')
    with pytest.raises(ValueError, match='reg.pth holds a ViT with register tokens, which no ViT of mm has'):
        build(dict(type='Pretrained', checkpoint=f'timm:{tmp_path / "reg.pth"}')).init_weights()


@pytest.mark.parametrize('size', [(16, 16), (14, 20), (28, 16)])
def test_a_resampled_kernel_answers_a_resized_patch_as_before(size):
    kernel, patch = torch.randn(5, 3, 14, 14), torch.randn(2, 3, 14, 14)
    resized = F.interpolate(patch.double(), size, mode='bilinear')
    answers = torch.einsum('oihw,bihw->bo', resample_kernel(kernel.double(), size), resized)
    assert torch.allclose(answers, torch.einsum('oihw,bihw->bo', kernel.double(), patch.double()), atol=1e-5)


def test_a_kernel_that_shrinks_is_the_least_squares():
    kernel = torch.randn(1, 1, 1, 16, dtype=torch.float64)
    resize = F.interpolate(torch.eye(16, dtype=torch.float64)[:, None, None], (1, 8), mode='bilinear').flatten(1)
    best = torch.linalg.lstsq(resize, kernel.flatten()[:, None]).solution
    assert torch.allclose(resample_kernel(kernel, (1, 8)).flatten(), best.flatten(), atol=1e-6)


def test_a_kernel_of_the_same_size_and_dtype_comes_back():
    kernel = torch.randn(4, 3, 16, 16, dtype=torch.float16)
    assert torch.equal(resample_kernel(kernel, (16, 16)), kernel)


def test_a_resampled_kernel_has_the_same_bits_on_every_machine():
    # Of exact operations: MKL's square root is not the same on every machine.
    kernel = (torch.arange(8 * 3 * 14 * 14) * 7919 % 1009).float().reshape(8, 3, 14, 14) / 1024
    assert digest(resample_kernel(kernel, (16, 16))) == '2ed7b11bf997b051'


@pytest.mark.parametrize('split', ['train', 'test'])
def test_images_of_coco_have_the_square_of_the_grid(tmp_path, split):
    register_library('mmdet')
    init_default_scope('mmdet')
    dataset = copy.deepcopy(config('mona_dinov2_coco')[f'{split}_dataloader'].dataset)
    files = dict(data_root=str(write_data(tmp_path / 'data')), ann_file='annotations/train.json')
    dataset.update(files, data_prefix=dict(img='train'), metainfo=dict(classes=CLASSES))
    assert {item['inputs'].shape for item in DATASETS.build(dataset)} == {(3, 1024, 1024)}
