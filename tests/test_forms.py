"""The forms for CPUs and for GPUs: they compute the same, and what a GPU would be asked to run is counted on a CPU."""

import copy
from collections import Counter

import mmdet.models
import mmseg.models
import pytest
import torch
from tiny import HOSTS, MONA, image
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import mmpeft
from mmpeft.forms import for_cpu

# What launches nothing.
VIEWS = {
    'view', '_unsafe_view', 't', 'transpose', 'permute', 'expand', 'slice', 'select', 'unsqueeze', 'squeeze', 'detach',
    'alias', 'as_strided', 'unbind', 'split', 'chunk', 'unflatten', 'flatten', 'reshape', '_reshape_alias',
    'split_with_sizes', 'empty', 'empty_like', 'new_empty', 'movedim',
}  # fmt: skip
WAITS = {'_local_scalar_dense', 'item', 'is_nonzero', 'equal'}


class Operations(TorchDispatchMode):
    """Counts what is dispatched."""

    def __init__(self) -> None:
        super().__init__()
        self.names = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))

    @property
    def launched(self) -> int:
        return sum(number for name, number in self.names.items() if name not in VIEWS)

    @property
    def waits(self) -> int:
        return sum(number for name, number in self.names.items() if name in WAITS)


def swin() -> nn.Module:
    return mmdet.models.SwinTransformer(embed_dims=32, depths=(2, 2, 6, 2), num_heads=(1, 2, 4, 8), drop_path_rate=0.2)


def vit() -> nn.Module:
    sizes = dict(img_size=256, patch_size=16, embed_dims=64, num_layers=6, num_heads=4)
    return mmseg.models.VisionTransformer(**sizes, out_indices=(1, 3, 5))


def step(backbone: nn.Module, x: torch.Tensor) -> Operations:
    """A forward and a backward pass under autocast."""
    with Operations() as operations:
        with torch.autocast('cpu', torch.bfloat16):
            outputs = backbone(x)
        torch.autograd.backward(list(outputs), [torch.ones_like(out) for out in outputs])
    return operations


@pytest.mark.parametrize(
    'make, method, most',
    [(swin, 'Mona', 1750), (vit, 'Mona', 670), (swin, 'LoRA', 1390), (vit, 'LoRA', 350), (vit, 'CVPT', 390)],
)
def test_a_training_step_asks_a_gpu_for_few_operations_and_waits_for_none(make, method, most, monkeypatch):
    monkeypatch.setenv('MMPEFT_FORM', 'gpu')
    backbone = make()
    mmpeft.inject(backbone, dict(type=method, **dict(rank=16) if method == 'LoRA' else {}))
    mmpeft.freeze(backbone)
    backbone.train()
    x = torch.randn(1, 3, 256, 256)
    step(backbone, x)
    backbone.zero_grad()
    operations = step(backbone, x)
    assert operations.launched <= most and operations.waits == 0


def test_a_mona_in_inference_is_at_most_twelve_operations(monkeypatch):
    monkeypatch.setenv('MMPEFT_FORM', 'gpu')
    counts = []
    for method in ('Frozen', 'Mona'):
        backbone = vit()
        mmpeft.inject(backbone, dict(type=method))
        backbone.eval()
        with torch.no_grad(), torch.autocast('cpu', torch.bfloat16), Operations() as operations:
            backbone(torch.randn(1, 3, 256, 256))
        counts.append(operations.launched)
    assert counts[1] - counts[0] <= 12 * 12


def results(backbone: nn.Module, form: str, monkeypatch, autocast: bool) -> list[torch.Tensor]:
    monkeypatch.setenv('MMPEFT_FORM', form)
    torch.manual_seed(3)
    with torch.autocast('cpu', torch.bfloat16, enabled=autocast):
        outputs = backbone(image(40, 48))
    wanted = [parameter for parameter in backbone.parameters() if parameter.requires_grad]
    return [*outputs, *torch.autograd.grad([out.float().square().mean() for out in outputs], wanted)]


@pytest.mark.parametrize('autocast', [False, True])
@pytest.mark.parametrize('method', [MONA | dict(dropout=0.0), MONA | dict(dropout=0.0, lean=True), dict(type='SSF')])
@pytest.mark.parametrize('host', ['mmdet Swin', 'mmseg ViT'])
def test_both_forms_compute_the_same(host, method, autocast, monkeypatch):
    backbone = HOSTS[host]()
    mmpeft.inject(backbone, method)
    mmpeft.freeze(backbone)
    most = 0.05 if autocast else 1e-5
    forms = (results(backbone, form, monkeypatch, autocast) for form in ('cpu', 'gpu'))
    for ours, theirs in zip(*forms, strict=True):
        assert (ours - theirs).norm() <= most * theirs.norm() + 1e-7


def test_dropout_keeps_its_share_in_both_forms(monkeypatch):
    layer = mmpeft.methods.Mona(8, bottleneck=64, dropout=0.5)
    nn.init.zeros_(layer.up.weight)
    x = torch.randn(4, 900, 8)
    for form in ('cpu', 'gpu'):
        monkeypatch.setenv('MMPEFT_FORM', form)
        (grad,) = torch.autograd.grad(layer(x, (30, 30)).sum(), layer.up.weight)
        layer.eval()
        (expected,) = torch.autograd.grad(layer(x, (30, 30)).sum(), layer.up.weight)
        layer.train()
        assert not torch.equal(grad, expected)
        assert (grad - expected).norm() < 0.1 * expected.norm()


def test_frozen_weights_in_the_dtype_of_autocast_change_no_bit(monkeypatch):
    backbone = HOSTS['mmdet Swin']()
    mmpeft.inject(backbone, dict(type='LoRA', rank=2))
    mmpeft.freeze(backbone)
    twin = copy.deepcopy(backbone)
    twin.linears = ()
    for form in ('cpu', 'gpu'):
        for ours, theirs in zip(
            results(backbone, form, monkeypatch, True), results(twin, form, monkeypatch, True), strict=True
        ):
            assert torch.equal(ours, theirs)


def test_weights_that_train_are_not_taken_from_what_was_cast_before():
    backbone = HOSTS['mmdet Swin']()
    mmpeft.inject(backbone, dict(type='BitFit'))
    mmpeft.freeze(backbone)
    with torch.autocast('cpu', torch.bfloat16):
        outputs = backbone(image(40, 48))
    sum(out.float().sum() for out in outputs).backward()
    assert all(p.grad is not None for name, p in backbone.named_parameters() if name.endswith('qkv.bias'))


def test_another_form_is_refused(monkeypatch):
    monkeypatch.setenv('MMPEFT_FORM', 'tpu')
    with pytest.raises(ValueError, match="MMPEFT_FORM is cpu or gpu, got 'tpu'"):
        for_cpu(torch.zeros(1))
