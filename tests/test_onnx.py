"""Adapted and merged backbones leave PyTorch by ``torch.onnx.export`` as they are."""

import copy
from itertools import product

import mmpretrain.models
import mmseg.models
import onnxruntime
import pytest
import torch
from tiny import BACKBONES, HOSTS, SWINS
from torch.export import Dim

import mmpeft

METHODS = {
    'Mona': dict(type='Mona', bottleneck=4),
    'CVPT': dict(type='CVPT', num_prompts=3),
    'merged SSF': dict(type='SSF'),
}
ONE_BLOCK = dict(embed_dims=16, num_layers=1, num_heads=2)
VITS = {
    'mmseg': lambda: mmseg.models.VisionTransformer(
        **ONE_BLOCK, img_size=32, patch_size=8, mlp_ratio=2, out_indices=0, patch_bias=True
    ),
    'mmpretrain': lambda: mmpretrain.models.VisionTransformer(
        dict(ONE_BLOCK, feedforward_channels=32), img_size=32, patch_size=8, out_indices=0, out_type='featmap'
    ),
}
ANY_SIZE = {0: Dim('batch'), 2: Dim.DYNAMIC, 3: Dim.DYNAMIC}
TOLERANCE = 1e-5


def adapted(backbone, method):
    mmpeft.inject(backbone, METHODS[method])
    backbone.eval()
    if method == 'merged SSF':
        assert mmpeft.merge(backbone).is_stock
    return backbone


def exported(backbone, image, folder, dynamic_shapes=None):
    """The backbone as ONNX in onnxruntime: a function from images to maps."""
    program = torch.onnx.export(backbone, (image,), dynamo=True, dynamic_shapes=dynamic_shapes, verbose=False)
    program.save(folder / 'backbone.onnx')
    session = onnxruntime.InferenceSession(folder / 'backbone.onnx')
    return lambda x: session.run(None, {session.get_inputs()[0].name: x.numpy()})


@torch.no_grad()
def check(backbone, onnx, x):
    for ours, expected in zip(onnx(x), backbone(x), strict=True):
        assert ((torch.from_numpy(ours) - expected).norm() / expected.norm()).item() <= TOLERANCE


QUICK = ('mmpretrain', 'Mona')
CASES = [pytest.param(*case, marks=() if case == QUICK else pytest.mark.slow) for case in product(VITS, METHODS)]


@pytest.mark.parametrize('library, method', CASES)
def test_a_vit_exports_for_any_batch_height_and_width(tmp_path, library, method):
    backbone = adapted(VITS[library](), method)
    onnx = exported(backbone, torch.randn(2, 3, 32, 48), tmp_path, (ANY_SIZE,))
    copy.deepcopy(backbone)  # no symbolic size stays behind
    for size in ((2, 3, 32, 48), (3, 3, 64, 40), (1, 3, 8, 8)):
        check(backbone, onnx, torch.randn(size))


ONE_SIZE = {
    'mmseg BEiT': dict(num_layers=1, out_indices=0),
    'mmpretrain BEiT': dict(arch=dict(ONE_BLOCK, feedforward_channels=32), out_indices=0),
    'mmpretrain DeiT3': dict(arch=dict(ONE_BLOCK, feedforward_channels=32), out_indices=0),
    'mmpretrain SAM': dict(arch=dict(ONE_BLOCK, feedforward_channels=32, global_attn_indexes=[]), out_indices=0),
    'mmpretrain SwinV2': dict(
        arch=dict(depths=[2], embed_dims=16, num_heads=[2], extra_norm_every_n_blocks=0), out_indices=(0,)
    ),
}
# A shift of the keys stays, so that there is no stock model to export.
NOT_MERGED = [('mmpretrain SwinV2', 'merged SSF')]


@pytest.mark.slow
@pytest.mark.parametrize('host, method', [pair for pair in product(ONE_SIZE, METHODS) if pair not in NOT_MERGED])
def test_other_transformers_export_for_one_size(tmp_path, host, method):
    backbone, image = adapted(HOSTS[host](**ONE_SIZE[host]), method), torch.randn(2, 3, 30, 44)
    check(backbone, exported(backbone, image, tmp_path), torch.randn_like(image))


@pytest.mark.slow
@pytest.mark.parametrize('method', METHODS)
def test_a_swin_exports_for_one_size(tmp_path, method):
    sizes = dict(window_size=3, embed_dims=8, depths=(2, 1), num_heads=(1, 2), out_indices=(0, 1))
    backbone = adapted(SWINS['mmdet'](**sizes), method)
    image = torch.randn(2, 3, 30, 44)
    check(backbone, exported(backbone, image, tmp_path), torch.randn_like(image))


@pytest.mark.filterwarnings('ignore')  # of sizes that tracing makes tensors of
def test_the_old_exporter_is_refused_in_one_line(tmp_path):
    backbone = adapted(VITS['mmseg'](), 'Mona')
    with pytest.raises(RuntimeError, match=r'old ONNX exporter cannot take Mona.*dynamo=True'):
        torch.onnx.export(backbone, (torch.randn(1, 3, 32, 32),), tmp_path / 'backbone.onnx', dynamo=False)


# LoRA as it is where keys are of a smaller map, in both forms of its projections.
PYRAMIDS = [('mmseg MiT', 'Mona'), ('mmdet PVT', 'Mona'), ('mmpretrain SVT', 'LoRA'), ('mmpretrain ConvNeXt', 'Mona')]


@pytest.mark.slow
@pytest.mark.parametrize('host, method', PYRAMIDS)
def test_a_pyramid_exports_for_one_size(tmp_path, host, method):
    backbone = BACKBONES[host]()
    mmpeft.inject(backbone, METHODS[method] if method in METHODS else dict(type=method, rank=2))
    backbone.eval()
    image = torch.randn(2, 3, 32, 64)
    check(backbone, exported(backbone, image, tmp_path), torch.randn_like(image))
