import pytest
import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from mmpeft.costs import flops, peak_of_tensors, without_content


@pytest.mark.parametrize('backend', [SDPBackend.MATH, SDPBackend.FLASH_ATTENTION])
def test_attention_costs_two_products_whatever_computes_it(backend):
    q, k = torch.randn(2, 3, 5, 8), torch.randn(2, 3, 7, 8)
    with sdpa_kernel(backend):
        assert flops(lambda: F.scaled_dot_product_attention(q, k, k)) == 2 * 2 * (2 * 3) * 5 * 7 * 8


def test_the_peak_is_what_is_alive_at_one_time_and_no_tensor_counts_twice():
    x = torch.ones(1000)

    def run():
        y = x.view(10, 100) + 1  # 4,000 bytes
        y = torch.cat((y, y))  # 8,000 more
        del y
        torch.ones(500).mul_(2).t()

    assert peak_of_tensors(run) == 12_000
    assert peak_of_tensors(lambda: x.mul_(2).view(10, 100)) == 0


def test_a_backward_pass_lets_go_of_what_it_has_used_and_makes_gradients():
    layer = torch.nn.Linear(300, 200, bias=False)

    def step(x):
        return peak_of_tensors(lambda: layer(x).sigmoid().sum().backward())

    # The gradients of the weight and of what sigmoid got, the sum and its own; what sigmoid gave is gone by then.
    assert step(torch.randn(50, 300)) == 4 * (300 * 200 + 50 * 200 + 2)
    layer.zero_grad()
    with without_content(layer):
        assert step(torch.empty(50, 300)) == 4 * (300 * 200 + 50 * 200 + 2)


def test_within_shapes_alone_modules_compute_nothing():
    layer = torch.nn.BatchNorm1d(3)
    with without_content(layer):
        y = layer(torch.empty(10**9, 3))
    assert y.shape == (10**9, 3) and type(layer.running_mean) is not torch.Tensor
