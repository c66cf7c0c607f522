"""Transformer blocks shared by the image and the text encoder."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional

from models.layers.cpu import Linear, self_attention, trains_on_cpu

__all__ = ["Block", "CrossAttention", "Mlp", "SelfAttention", "kept", "quick_gelu"]

LAYER_NORM_EPS = 1e-5


def quick_gelu(x: torch.Tensor) -> torch.Tensor:
    """x * sigmoid(1.702 x), CLIP's activation in the text encoder."""
    return _QuickGelu.apply(x)


class _QuickGelu(torch.autograd.Function):
    """One tensor kept for backward, where autograd would keep three."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        # silu is one fused kernel: x * sigmoid(c x) = silu(c x) / c
        return functional.silu(x * 1.702).mul_(1 / 1.702)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient: torch.Tensor) -> torch.Tensor:
        (x,) = ctx.saved_tensors
        return torch.ops.aten.silu_backward(gradient, x * 1.702)


def kept(
    x: torch.Tensor, rate: float, training: bool, generator: torch.Generator | None
) -> torch.Tensor | None:
    """Stochastic depth: factors (B, 1, ...) of a residual branch, 0 for a sample whose branch is dropped.

    A branch is dropped for whole samples with chance ``rate``; what stays is scaled by 1 / (1 - rate), so that
    the expectation is kept. None: every factor is 1.
    """
    if not training or rate == 0.0:
        return None
    keep = torch.empty((x.shape[0],) + (1,) * (x.ndim - 1), device=x.device)
    return keep.bernoulli_(1.0 - rate, generator=generator).div_(1.0 - rate)


def _scaled(branch: torch.Tensor, factors: torch.Tensor | None) -> torch.Tensor:
    return branch if factors is None else branch * factors.to(branch.dtype)


class Mlp(nn.Module):
    """Linear, activation, linear over the last dimension: (..., width) -> (..., width)."""

    def __init__(
        self,
        width: int,
        hidden: int,
        activation: Callable[[torch.Tensor], torch.Tensor] = functional.gelu,
    ) -> None:
        super().__init__()
        self.fc1 = Linear(width, hidden)
        self.fc2 = Linear(hidden, width)
        self.activation = activation

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., width) -> (..., width)."""
        return self.fc2(self.activation(self.fc1(x)))


class SelfAttention(nn.Module):
    """Multi-head attention of (B, N, width) over itself, queries, keys and values by one product."""

    def __init__(self, width: int, heads: int, causal: bool = False) -> None:
        super().__init__()
        self.heads = heads
        self.causal = causal
        self.qkv = Linear(width, 3 * width)
        self.out = Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, N, width) -> (B, N, width)."""
        batch, length, width = x.shape
        qkv = self.qkv(x)
        if trains_on_cpu(qkv):
            return self.out(self_attention(qkv, self.heads, self.causal))
        parts = qkv.view(batch, length, 3, self.heads, width // self.heads)
        q, k, v = parts.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return self.out(mixed.transpose(1, 2).reshape(batch, length, width))


class CrossAttention(nn.Module):
    """Multi-head attention of queries (B, M, width) over other tokens (B, N, width)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q = Linear(width, width)
        self.kv = Linear(width, 2 * width)
        self.out = Linear(width, width)

    def forward(self, queries: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """(B, M, width) and (B, N, width) -> (B, M, width)."""
        batch, length, width = queries.shape
        head = width // self.heads
        q = self.q(queries).view(batch, length, self.heads, head).transpose(1, 2)
        k, v = self.kv(tokens).view(batch, -1, 2, self.heads, head).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = functional.scaled_dot_product_attention(q, k, v)
        return self.out(mixed.transpose(1, 2).reshape(batch, length, width))


class Block(nn.Module):
    """Pre-norm transformer block: x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(
        self,
        width: int,
        heads: int,
        mlp_ratio: float,
        drop_rate: float = 0.0,
        causal: bool = False,
        activation: Callable[[torch.Tensor], torch.Tensor] = functional.gelu,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.attention = SelfAttention(width, heads, causal)
        self.norm2 = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.mlp = Mlp(width, int(width * mlp_ratio), activation)
        self.drop_rate = drop_rate
        self._compiled: Callable[..., torch.Tensor] | None = None

    def forward(self, x: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
        """(B, N, width) -> (B, N, width); ``generator`` draws the dropped samples."""
        first = kept(x, self.drop_rate, self.training, generator)
        second = kept(x, self.drop_rate, self.training, generator)
        layers = self._compiled if self.training and self._compiled else self._layers
        return layers(x, first, second)

    def compile_layers(self) -> None:
        """Let torch.compile write the kernels of this block for training; blocks of one kind share them.

        Drawing stays outside: a compiled graph cannot take a generator.
        """
        self._compiled = torch.compile(self._layers, dynamic=True)

    def _layers(
        self, x: torch.Tensor, first: torch.Tensor | None, second: torch.Tensor | None
    ) -> torch.Tensor:
        x = x + _scaled(self.attention(self.norm1(x)), first)
        return x + _scaled(self.mlp(self.norm2(x)), second)
