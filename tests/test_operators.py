"""Operators without a public name against the gradients of public functions, in values, dtypes and memory."""

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from mmpeft import operators
from mmpeft.methods import SSF, Mona

DTYPES = [torch.float32, torch.float64]


def plain(function, *inputs):
    """The output of a function and a gradient of it, then what autograd makes of that for the inputs."""
    inputs = [tensor.clone().requires_grad_() for tensor in inputs]
    out = function(*inputs)
    grad = torch.randn_like(out)
    return out.detach(), grad, torch.autograd.grad(out, inputs, grad)


def close(found, expected):
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize('dtype', DTYPES)
def test_layer_norm_has_the_values_and_gradients_of_the_public_one(dtype):
    x, weight, bias = torch.randn(3, 5, 8, dtype=dtype), *torch.randn(2, 8, dtype=dtype)
    out, grad, expected = plain(lambda x, w, b: F.layer_norm(x, (8,), w, b, 1e-3), x, weight, bias)
    y, mean, rstd = operators.layer_norm(x, weight, bias, 1e-3)
    close([y, mean], [out, x.mean(-1, keepdim=True)])
    close(operators.layer_norm_backward(grad, x, mean, rstd, weight, bias), expected)
    without_x = operators.layer_norm_backward(grad, x, mean, rstd, weight, bias, needs_x=False)
    assert without_x[0] is None
    close(without_x[1:], expected[1:])


@pytest.mark.parametrize('dtype', DTYPES)
def test_batch_norm_gives_the_gradients_of_weight_and_bias(dtype):
    x, (weight, bias, mean) = torch.randn(3, 5, 8, dtype=dtype), torch.randn(3, 8, dtype=dtype)
    deviation = torch.rand(8, dtype=dtype) + 0.5
    _, grad, expected = plain(lambda w, b: (x - mean) / deviation * w + b, weight, bias)
    close(operators.batch_norm_backward(grad, x, mean, 1 / deviation, weight), expected)
    sums = operators.batch_norm_backward(grad[:0], x[:0], mean, 1 / deviation, weight)
    assert not any(part.any() for part in sums)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
@pytest.mark.parametrize('layer', [Mona, SSF])
def test_the_statistics_of_batch_norm_are_in_fp32_beside_half_precision(layer, dtype, monkeypatch):
    """CUDA's kernel reads them as fp32, whatever they are."""
    monkeypatch.setenv('MMPEFT_FORM', 'cpu')
    seen = []

    class Spy(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func.overloadpacket is torch.ops.aten.native_batch_norm_backward:
                seen.extend(args[index].dtype for index in (2, 5, 6))
            return func(*args, **(kwargs or {}))

    adapter, x = layer(12).to(dtype), torch.randn(2, 20, 12, dtype=dtype, requires_grad=True)
    out = adapter(x, (4, 5)) if layer is Mona else adapter.after_linear(x, torch.eye(12, dtype=dtype), None)
    with Spy():
        out.sum().backward()
    assert seen == [torch.float32] * 3
    assert all(parameter.grad.dtype == dtype for parameter in adapter.parameters())


def test_gelu_gives_its_gradient_in_the_memory_of_the_one_it_is_given():
    x = torch.randn(3, 5)
    _, grad, expected = plain(F.gelu, x)
    assert operators.gelu_backward_(grad, x) is grad
    close([grad], expected)


def test_softmax_gives_its_gradient_in_new_memory_and_in_that_of_the_one_it_is_given():
    x = torch.randn(3, 5, 7)
    out, grad, expected = plain(lambda x: x.softmax(-1), x)
    close([operators.softmax_backward(grad, out)], expected)
    assert operators.softmax_backward_(grad, out) is grad
    close([grad], expected)


def test_a_depthwise_convolution_gives_the_gradients_of_input_and_kernel():
    x, kernel = torch.randn(2, 4, 6, 9), torch.randn(4, 1, 7, 7)
    _, grad, expected = plain(lambda x, k: F.conv2d(x, k, padding=3, groups=4), x, kernel)
    close(operators.depthwise_backward(grad, x, kernel, 3, needs_kernel=True), expected)
    grad_x, grad_kernel = operators.depthwise_backward(grad, x, kernel, 3, needs_kernel=False)
    assert grad_kernel is None
    close([grad_x], expected[:1])


def test_a_dropout_mask_keeps_its_share_and_does_not_depend_on_how_a_tensor_lies():
    torch.manual_seed(0)
    mask = operators.dropout_mask(torch.empty(200, 50), 0.3)
    assert mask.dtype == torch.bool and mask.float().mean().item() == pytest.approx(0.7, abs=0.02)
    torch.manual_seed(0)
    assert torch.equal(operators.dropout_mask(torch.empty(50, 200).T, 0.3), mask)
    torch.manual_seed(0)
    assert torch.equal(F.dropout(torch.ones(200, 50), 0.3) > 0, mask)


@pytest.mark.parametrize('batch', [1, 2])
def test_gradients_of_a_scale_do_not_depend_on_how_tensors_lie_in_memory(batch):
    grad, x = torch.randn(2, batch, 30, 8)
    expected = (grad * x).sum((0, 1)), grad.sum((0, 1))
    turned = [tensor.transpose(1, 2).contiguous().transpose(1, 2) for tensor in (grad, x)]
    for pair in ((grad, turned[1]), (turned[0], x), turned):
        found = operators.batch_norm_backward(*pair, torch.zeros(8), torch.ones(8), torch.ones(8))
        for ours, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(ours, theirs)
