"""Batch norm over the rows of all ranks, on CPU and GPU (Horovod's own runs on GPUs only)."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from training import distributed

__all__ = ["SyncBatchNorm"]


class _Normalise(torch.autograd.Function):
    """(x - mean) / deviation with the moments of all ranks' rows; gradients flow through the moments too."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, eps: float, moments: torch.Tensor) -> torch.Tensor:
        """``moments`` (2 C + 1): receives the ranks' sums of rows, of centred squares, and the count."""
        width = x.shape[1]
        moments[:width], moments[-1] = x.sum(dim=0), len(x)
        head = torch.cat([moments[:width], moments[-1:]])
        distributed.sum_(head, f"norm.sum.{width}")
        mean, count = head[:-1] / head[-1], head[-1]
        # Second pass over centred rows: E[x^2] - E[x]^2 loses digits in float32.
        squares = (x - mean).square().sum(dim=0)
        distributed.sum_(squares, f"norm.squares.{width}")
        moments[:width], moments[width:-1], moments[-1] = mean, squares / count, count
        scale = (moments[width:-1] + eps).rsqrt()
        normal = (x - mean) * scale
        ctx.save_for_backward(normal, scale, count)
        return normal

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        normal, scale, count = ctx.saved_tensors
        sums = torch.cat([gradient.sum(dim=0), (gradient * normal).sum(dim=0)])
        distributed.sum_(sums, f"norm.backward.{normal.shape[1]}")
        along, across = (sums / count).chunk(2)
        return scale * (gradient - along - normal * across), None, None


class SyncBatchNorm(nn.BatchNorm1d):
    """``nn.BatchNorm1d`` of (n, C) whose statistics are those of the whole global batch; float32 inside."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, C) -> (n, C); every rank must call it in the same order."""
        if not self.training or distributed.size() == 1:
            return super().forward(x)
        with torch.autocast(x.device.type, enabled=False):
            rows = x if x.dtype == torch.float64 else x.float()
            moments = rows.new_zeros(2 * rows.shape[1] + 1)
            normal = _Normalise.apply(rows, self.eps, moments)
            self._remember(moments)
            return (normal * self.weight + self.bias).to(x.dtype)

    @torch.no_grad()
    def _remember(self, moments: torch.Tensor) -> None:
        mean, variance, count = moments[: self.num_features], moments[self.num_features : -1], moments[-1]
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)
        self.num_batches_tracked.add_(1)
