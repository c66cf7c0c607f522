"""Batch norm over the rows of all ranks, on CPU and GPU (Horovod's own runs on GPUs only), several by one exchange."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from training import distributed

__all__ = ["SyncBatchNorm"]


class _Normalise(torch.autograd.Function):
    """(x - mean) / deviation with the moments of all ranks' rows; gradients flow through the moments too."""

    @staticmethod
    def forward(
        ctx: Any, eps: float, moments: list[torch.Tensor], *rows: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        """``moments``: receives of each norm (2 C + 1) mean, mean square deviation and count of all rows."""
        own = torch.cat([_own_moments(x) for x in rows])
        of_ranks = distributed.rows_of_all(own, f"norm.{len(own)}")
        normal, kept = [], []
        for x, parts in zip(rows, of_ranks.split([2 * x.shape[1] + 1 for x in rows], dim=1), strict=True):
            mean, square, count = _merged(parts, x.shape[1])
            moments.append(torch.cat([mean, square, count]))
            scale = (square + eps).rsqrt()
            normal.append((x - mean) * scale)
            kept += [normal[-1], scale, count]
        ctx.save_for_backward(*kept)
        return tuple(normal)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        kept = ctx.saved_tensors
        saved = [kept[start : start + 3] for start in range(0, len(kept), 3)]
        sums = torch.cat(
            [
                torch.cat([gradient.sum(dim=0), (gradient * normal).sum(dim=0)])
                for gradient, (normal, _, _) in zip(gradients, saved, strict=True)
            ]
        )
        distributed.sum_(sums, f"norm.backward.{len(sums)}")
        found = []
        widths = [2 * gradient.shape[1] for gradient in gradients]
        for gradient, (normal, scale, count), part in zip(gradients, saved, sums.split(widths), strict=True):
            along, across = (part / count).chunk(2)
            found.append(scale * (gradient - along - normal * across))
        return None, None, *found


def _own_moments(x: torch.Tensor) -> torch.Tensor:
    """(2 C + 1): mean, sum of squares about it, number of rows."""
    mean = x.mean(dim=0)
    return torch.cat([mean, (x - mean).square().sum(dim=0), mean.new_full((1,), len(x))])


def _merged(parts: torch.Tensor, width: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Moments of the ranks (ranks, 2 C + 1) -> mean, mean square deviation and count (1,) of all rows.

    Sums about each rank's own mean are put together (Chan et al. 1979): E[x^2] - E[x]^2 loses digits in float32.
    """
    means, squares, counts = parts.split([width, width, 1], dim=1)
    count = counts.sum(dim=0)
    mean = (counts * means).sum(dim=0) / count
    return mean, (squares + counts * (means - mean).square()).sum(dim=0) / count, count


class SyncBatchNorm(nn.BatchNorm1d):
    """``nn.BatchNorm1d`` of (n, C) whose statistics are those of the whole global batch; float32 inside."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, C) -> (n, C); every rank must call it in the same order."""
        return self.together([self], [x])[0]

    def together(self, norms: Sequence[nn.Module], rows: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """See :class:`JointNorm`."""
        if not self.training or distributed.size() == 1:
            return [nn.BatchNorm1d.forward(norm, x) for norm, x in zip(norms, rows, strict=True)]  # type: ignore[arg-type]
        with torch.autocast(rows[0].device.type, enabled=False):
            wide = [x if x.dtype == torch.float64 else x.float() for x in rows]
            moments: list[torch.Tensor] = []
            normal = _Normalise.apply(self.eps, moments, *wide)
            for norm, found in zip(norms, moments, strict=True):
                norm._remember(found)  # type: ignore[operator]
            return [
                (part * norm.weight + norm.bias).to(x.dtype)
                for norm, part, x in zip(norms, normal, rows, strict=True)
            ]

    @torch.no_grad()
    def _remember(self, moments: torch.Tensor) -> None:
        mean, variance, count = moments[: self.num_features], moments[self.num_features : -1], moments[-1]
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)
        self.num_batches_tracked.add_(1)
