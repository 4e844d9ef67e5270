"""The forms for CPUs and for GPUs: they compute the same, and what a GPU would be asked to run is counted on a CPU."""

import copy

import mmdet.models
import mmseg.models
import pytest
import torch
from tiny import BACKBONES, MONA, image
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import mmpeft
from mmpeft.counting import Operations
from mmpeft.forms import for_cpu
from mmpeft.hosts import Call
from mmpeft.methods import CVPT, SSF, Adapter, LoRA
from mmpeft.methods.cvpt import Attention
from mmpeft.plain import use_plain_forms

aten = torch.ops.aten
FORMS = ['cpu', 'gpu']
METHODS = [
    MONA | dict(dropout=0.0),
    MONA | dict(dropout=0.0, lean=True),
    dict(type='SSF'),
    dict(type='CVPT', dropout=0.0),
    dict(type='LoRA', rank=2),
    dict(type='Adapter', dropout=0.0),
]


class Masks(TorchDispatchMode):
    """Which gradients operations are asked for: those of input, weight and bias."""

    def __init__(self, *operations) -> None:
        super().__init__()
        self.operations, self.masks = operations, []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket in self.operations:
            self.masks.append(tuple(args[-1]))
        return func(*args, **(kwargs or {}))


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
    [
        (swin, 'Mona', 1750),
        (vit, 'Mona', 655),
        (swin, 'SSF', 1320),
        (vit, 'SSF', 385),
        (swin, 'CVPT', 1240),
        (vit, 'CVPT', 350),
        (swin, 'LoRA', 1160),
        (vit, 'LoRA', 295),
        (swin, 'Adapter', 1280),
        (vit, 'Adapter', 375),
    ],
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


def adapted(host: str, method: dict, **options) -> nn.Module:
    backbone = BACKBONES[host](**options)
    mmpeft.inject(backbone, method)
    mmpeft.freeze(backbone)
    return backbone


def results(backbone: nn.Module, x: torch.Tensor, form: str, monkeypatch, autocast: bool) -> list[torch.Tensor]:
    monkeypatch.setenv('MMPEFT_FORM', form)
    torch.manual_seed(3)
    with torch.autocast('cpu', torch.bfloat16, enabled=autocast):
        outputs = backbone(x)
    wanted = [parameter for parameter in backbone.parameters() if parameter.requires_grad]
    losses = [out.float().square().mean() for out in outputs]
    return [*outputs, *torch.autograd.grad(losses, wanted, materialize_grads=True)]


@pytest.mark.parametrize('method', METHODS)
@pytest.mark.parametrize('host', ['mmdet Swin', 'mmseg ViT'])
def test_both_forms_compute_the_same(host, method, monkeypatch):
    backbone, x = adapted(host, method), image(40, 48)
    for ours, theirs in zip(*(results(backbone, x, form, monkeypatch, False) for form in FORMS), strict=True):
        assert (ours - theirs).norm() <= 1e-5 * theirs.norm() + 1e-7


@pytest.mark.parametrize('method', METHODS)
@pytest.mark.parametrize('host', ['mmdet Swin', 'mmseg ViT'])
def test_under_autocast_the_form_for_gpus_is_as_exact_as_that_for_cpus(host, method, monkeypatch):
    backbone, x = adapted(host, method), image(40, 48)
    exact = results(backbone, x, 'cpu', monkeypatch, False)
    on_cpus, on_gpus = (results(backbone, x, form, monkeypatch, True) for form in FORMS)
    count = sum(parameter.requires_grad for parameter in backbone.parameters())
    for part in (slice(-count), slice(-count, None)):  # the outputs, the gradients
        assert distance(on_gpus[part], exact[part]) <= 1.5 * distance(on_cpus[part], exact[part])


def distance(found: list[torch.Tensor], expected: list[torch.Tensor]) -> torch.Tensor:
    return torch.stack([(a - b).norm() for a, b in zip(found, expected, strict=True)]).norm()


def accumulated(backbone: nn.Module, images: list[torch.Tensor]) -> list[torch.Tensor]:
    """The gradients of two images under autocast."""
    for x in images:
        with torch.autocast('cpu', torch.bfloat16):
            outputs = backbone(x)
        sum(out.float().square().mean() for out in outputs).backward()
    return [parameter.grad for parameter in backbone.parameters() if parameter.requires_grad]


@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize('method', METHODS)
def test_gradients_accumulate_through_checkpoints_of_either_kind(method, form, monkeypatch):
    """Stock blocks, in which SSF and LoRA sit, checkpoint re-entrantly; blocks with adapters of their own do not."""
    monkeypatch.setenv('MMPEFT_FORM', form)
    backbone, images = adapted('mmdet Swin', method, with_cp=True), [image(40, 48), image(30, 44)]
    backbone.train()
    plain = copy.deepcopy(backbone)
    for module in plain.modules():
        if hasattr(module, 'with_cp'):
            module.with_cp = False
    ours, theirs = accumulated(backbone, images), accumulated(plain, images)
    assert distance(ours, theirs) <= 1e-2 * distance(theirs, [torch.zeros_like(grad) for grad in theirs])


@pytest.mark.parametrize('method', METHODS)
def test_nothing_is_kept_that_weights_swapped_through_data_would_not_change(method, monkeypatch):
    monkeypatch.setenv('MMPEFT_FORM', 'gpu')
    backbone, x = adapted('mmdet Swin', method), image(40, 48)
    fresh = copy.deepcopy(backbone)
    backbone(x)
    for ours, theirs in zip(backbone.parameters(), fresh.parameters(), strict=True):
        ours.data = theirs.data.mul_(1.5).clone()
    assert all(map(torch.equal, backbone(x), fresh(x)))


@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize('lean', [False, True])
def test_a_frozen_mona_computes_no_gradient_of_its_weights(lean, form, monkeypatch):
    monkeypatch.setenv('MMPEFT_FORM', form)
    layer = mmpeft.methods.Mona(8, bottleneck=4, lean=lean).requires_grad_(False)
    x = torch.randn(2, 30, 8, requires_grad=True)
    out = layer(x, (5, 6))
    with Masks(aten.native_layer_norm_backward, aten.convolution_backward) as gradients, Operations() as operations:
        out.backward(torch.ones_like(out))
    assert [mask[1:] for mask in gradients.masks] == [(False, False)] * 2  # of the convolution, of the norm
    assert operations.names['mm'] == 3 and not operations.names['sum']
    assert not operations.names['native_batch_norm_backward'] and not operations.names['bmm']


@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize('host', ['mmseg ViT', 'mmdet Swin'])
def test_activations_that_work_in_place_may_follow_ssf(host, form, monkeypatch):
    backbone, x = adapted(host, dict(type='SSF'), act_cfg=dict(type='ReLU', inplace=True)), image(40, 48)
    plain = copy.deepcopy(backbone)
    use_plain_forms(plain)
    for ours, theirs in zip(*(results(net, x, form, monkeypatch, False) for net in (backbone, plain)), strict=True):
        assert (ours - theirs).norm() <= 1e-5 * theirs.norm() + 1e-7


def test_dropout_keeps_its_share_in_both_forms(monkeypatch):
    layer = mmpeft.methods.Mona(8, bottleneck=64, dropout=0.5)
    nn.init.zeros_(layer.up.weight)
    x = torch.randn(4, 900, 8)
    for form in FORMS:
        monkeypatch.setenv('MMPEFT_FORM', form)
        (grad,) = torch.autograd.grad(layer(x, (30, 30)).sum(), layer.up.weight)
        layer.eval()
        (expected,) = torch.autograd.grad(layer(x, (30, 30)).sum(), layer.up.weight)
        layer.train()
        assert not torch.equal(grad, expected)
        assert (grad - expected).norm() < 0.1 * expected.norm()


def test_frozen_weights_in_the_dtype_of_autocast_change_no_bit(monkeypatch):
    backbone, x = adapted('mmdet Swin', dict(type='LoRA', rank=2)), image(40, 48)
    twin = copy.deepcopy(backbone)
    twin.linears = ()
    for form in FORMS:
        for ours, theirs in zip(
            results(backbone, x, form, monkeypatch, True), results(twin, x, form, monkeypatch, True), strict=True
        ):
            assert torch.equal(ours, theirs)


def test_weights_that_train_are_not_taken_from_what_was_cast_before():
    backbone = adapted('mmdet Swin', dict(type='BitFit'))
    with torch.autocast('cpu', torch.bfloat16):
        outputs = backbone(image(40, 48))
    sum(out.float().sum() for out in outputs).backward()
    assert all(p.grad is not None for name, p in backbone.named_parameters() if name.endswith('qkv.bias'))


@pytest.mark.parametrize('host', BACKBONES)
def test_no_norm_is_asked_for_the_gradient_of_its_bias_alone(host, monkeypatch):
    """CUDA's kernel writes beside its memory then, where there are more than 65,536 tokens."""
    backbone, x = adapted(host, dict(type='BitFit')), image(40, 48)
    with Masks(aten.native_layer_norm_backward) as gradients:
        on_gpus = results(backbone, x, 'gpu', monkeypatch, False)
    assert gradients.masks and not any(bias and not weight for _, weight, bias in gradients.masks)
    for ours, theirs in zip(on_gpus, results(backbone, x, 'cpu', monkeypatch, False), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_norms_of_a_lone_bias_are_in_fp32_under_autocast_and_stock_when_merged(monkeypatch):
    backbone, x = adapted('mmseg ViT', dict(type='BitFit')), image(40, 48)
    monkeypatch.setenv('MMPEFT_FORM', 'gpu')
    norm = backbone.layers[0].ln1
    with torch.autocast('cpu', torch.bfloat16):
        assert norm(torch.randn(2, 5, 16).bfloat16()).dtype == torch.float32
    step(backbone, x)
    assert all(p.grad is not None for name, p in backbone.named_parameters() if p.requires_grad)
    mmpeft.merge(backbone)
    assert type(norm) is nn.LayerNorm


@pytest.mark.parametrize('method', ['SSF', 'CVPT', 'LoRA', 'Adapter'])
def test_compilers_trace_an_adapter_as_one_graph(method, monkeypatch):
    monkeypatch.setenv('MMPEFT_FORM', 'gpu')
    mha, linear = nn.MultiheadAttention(16, 2), nn.Linear(16, 32)
    call = Call(casts={id(p): p.bfloat16() for p in [*mha.parameters(), *linear.requires_grad_(False).parameters()]})
    attention = Attention.of_fused(mha.in_proj_weight, mha.in_proj_bias, mha.out_proj, 2)
    layer, read = {
        'SSF': (SSF(32).after_linear, (linear.weight, linear.bias, call)),
        'CVPT': (CVPT(16, 2, dropout=0.0), (attention, call)),
        'LoRA': (LoRA(16, 48, rank=2), ()),
        'Adapter': (Adapter(16, 4, dropout=0.0), ()),
    }[method]
    compiled, x = torch.compile(layer, backend='eager', fullgraph=True), torch.randn(2, 9, 16)
    with torch.autocast('cpu', torch.bfloat16):
        torch.testing.assert_close(compiled(x, *read), layer(x, *read), rtol=2e-2, atol=2e-2)


def test_another_form_is_refused(monkeypatch):
    monkeypatch.setenv('MMPEFT_FORM', 'tpu')
    with pytest.raises(ValueError, match="MMPEFT_FORM is cpu or gpu, got 'tpu'"):
        for_cpu(torch.zeros(1))
