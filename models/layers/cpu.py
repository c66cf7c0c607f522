"""Linear layers and attention in the forms that train fastest on a CPU.

Measured on an AVX-512 CPU, torch 2.13, at the paper's sizes (tests/benchmarks/bench_groupvit.py):

- float32 products by oneDNN, reached as a 1x1 convolution, run 1.2 to 1.5 times as fast as MKL's
  (which ``linear`` calls) on a non-Intel CPU; for the weight's gradient MKL is as good.
- The backward of the fused CPU attention takes 1.4 (float32) to 2.8 times (bfloat16) as long as plain
  products and a kept softmax. Its forward is no slower and needs no memory, so inference uses it.

Nothing here runs on a GPU; results differ from the plain functions by rounding only.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

__all__ = ["Linear", "self_attention", "trains_on_cpu"]

FunctionCtx = torch.autograd.function.FunctionCtx

_FEWEST_ROWS = 1024
_FEWEST_FEATURES = 64


class Linear(nn.Linear):
    """``nn.Linear`` that takes the faster way where there is one."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., in_features) -> (..., out_features)."""
        if self._by_convolution(x):
            return _ConvolutionLinear.apply(x, self.weight, self.bias)
        return super().forward(x)

    def _by_convolution(self, x: torch.Tensor) -> bool:
        return (
            x.device.type == "cpu"
            and x.dtype == self.weight.dtype == torch.float32
            and x.numel() >= _FEWEST_ROWS * self.in_features
            and min(self.in_features, self.out_features) >= _FEWEST_FEATURES
            and not torch.is_autocast_enabled("cpu")
        )


def _as_convolution(rows: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """(N, in) @ (out, in)^T + bias as a 1x1 convolution over N pixels stored channels-last (no copy)."""
    pixels = rows.view(1, len(rows), 1, -1).permute(0, 3, 1, 2)
    result = functional.conv2d(pixels, weight[:, :, None, None], bias)
    return result.permute(0, 2, 3, 1).reshape(len(rows), -1)


class _ConvolutionLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        rows = x.reshape(-1, x.shape[-1])
        ctx.save_for_backward(rows, weight)
        ctx.shape = x.shape
        return _as_convolution(rows, weight, bias).view(*x.shape[:-1], -1)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: FunctionCtx, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        rows, weight = ctx.saved_tensors
        gradient = gradient.reshape(len(rows), -1)
        for_x = None
        if ctx.needs_input_grad[0]:
            for_x = _as_convolution(gradient, weight.t().contiguous(), None).view(ctx.shape)
        return for_x, gradient.t() @ rows, gradient.sum(0)


def trains_on_cpu(x: torch.Tensor) -> bool:
    """Whether a backward pass through ``x`` on the CPU is to come."""
    return x.device.type == "cpu" and torch.is_grad_enabled() and x.requires_grad


def self_attention(qkv: torch.Tensor, heads: int, causal: bool) -> torch.Tensor:
    """(B, N, 3 width) queries, keys and values side by side -> (B, N, width), for training on a CPU."""
    return _SelfAttention.apply(qkv, heads, causal)


def _scaled_product(
    one: torch.Tensor, other: torch.Tensor, scale: float, out: torch.Tensor | None = None
) -> torch.Tensor:
    """scale x one @ other, the scale inside the product: beside it, in bfloat16, it takes as long as the product."""
    nothing = one.new_empty(()).expand(len(one), one.shape[1], other.shape[2])
    return torch.baddbmm(nothing, one, other, beta=0, alpha=scale, out=out)


class _SelfAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, qkv: torch.Tensor, heads: int, causal: bool) -> torch.Tensor:
        batch, length, triple = qkv.shape
        head = triple // (3 * heads)
        parts = qkv.view(batch, length, 3, heads, head).permute(2, 0, 3, 1, 4).contiguous()
        q, k, v = parts.view(3, batch * heads, length, head)
        scores = _scaled_product(q, k.transpose(1, 2), head**-0.5)
        if causal:
            scores += torch.full((length, length), -torch.inf, dtype=scores.dtype).triu_(1)
        chances = scores.softmax(dim=-1)
        ctx.save_for_backward(q, k, v, chances)
        ctx.batch, ctx.heads = batch, heads
        mixed = torch.bmm(chances, v).view(batch, heads, length, head)
        return mixed.transpose(1, 2).reshape(batch, length, heads * head)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: FunctionCtx, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        q, k, v, chances = ctx.saved_tensors
        batch, heads, (_, length, head) = ctx.batch, ctx.heads, q.shape
        mixed = gradient.view(batch, length, heads, head).transpose(1, 2).reshape(q.shape)
        result = torch.empty(3, *q.shape, dtype=q.dtype)
        torch.bmm(chances.transpose(1, 2), mixed, out=result[2])
        scores = torch.ops.aten._softmax_backward_data(
            torch.bmm(mixed, v.transpose(1, 2)), chances, -1, chances.dtype
        )
        _scaled_product(scores, k, head**-0.5, out=result[0])
        _scaled_product(scores.transpose(1, 2), q, head**-0.5, out=result[1])
        rows = result.view(3, batch, heads, length, head).permute(1, 3, 0, 2, 4)
        return rows.reshape(batch, length, 3 * heads * head), None, None
