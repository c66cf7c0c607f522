"""The CPU's own forms of linear layer, attention and activation give what torch's plain ones give."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from models.layers import cpu
from models.layers.blocks import quick_gelu


def gradients(result, inputs, direction):
    return torch.autograd.grad(result, inputs, direction)


def test_large_float32_linear_takes_the_other_way_and_equals_the_plain_one():
    torch.manual_seed(0)
    layer, x = cpu.Linear(96, 160), torch.randn(6, 200, 96, requires_grad=True)
    assert layer._by_convolution(x)
    found = layer(x)
    expected = functional.linear(x, layer.weight, layer.bias)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    inputs, direction = (x, layer.weight, layer.bias), torch.randn_like(found)
    for mine, theirs in zip(
        gradients(found, inputs, direction), gradients(expected, inputs, direction), strict=True
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("case", ["few rows", "float64", "autocast"])
def test_other_inputs_take_the_plain_way(case):
    layer = cpu.Linear(96, 160).to(torch.float64 if case == "float64" else torch.float32)
    x = torch.randn(20 if case == "few rows" else 2000, 96, dtype=layer.weight.dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=case == "autocast"):
        assert not layer._by_convolution(x)
        assert layer(x).shape == (len(x), 160)


@pytest.mark.parametrize("causal", [False, True])
def test_attention_equals_torchs_with_its_gradient(causal):
    torch.manual_seed(0)
    qkv = torch.randn(3, 7, 3 * 8, dtype=torch.float64, requires_grad=True)
    q, k, v = qkv.view(3, 7, 3, 2, 4).permute(2, 0, 3, 1, 4)
    expected = functional.scaled_dot_product_attention(q, k, v, is_causal=causal).transpose(1, 2).flatten(2)
    found = cpu.self_attention(qkv, 2, causal)
    torch.testing.assert_close(found, expected)
    direction = torch.randn_like(found)
    torch.testing.assert_close(gradients(found, qkv, direction), gradients(expected, qkv, direction))
    assert torch.autograd.gradcheck(lambda x: cpu.self_attention(x, 2, causal), (qkv,))


def test_quick_gelu_is_x_sigmoid_1_702_x():
    x = torch.linspace(-8, 8, 101, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(quick_gelu(x), x * torch.sigmoid(1.702 * x))
    assert torch.autograd.gradcheck(quick_gelu, (x,))
