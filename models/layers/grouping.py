"""The grouping block: segments are assigned to group tokens and merged (GroupViT, section 3.1)."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from models.layers.blocks import LAYER_NORM_EPS, CrossAttention, Mlp
from models.layers.cpu import Linear

__all__ = ["AssignAttention", "Grouping", "TokenMixer", "gumbel_noise", "hard_assignment"]


def gumbel_noise(like: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
    """float32 (or float64, as ``like``) samples of Gumbel(0, 1) in the shape of ``like``.

    Drawn from ``generator``, or from torch's global RNG of the device where that is None.
    """
    dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
    exponential = torch.empty(like.shape, dtype=dtype, device=like.device).exponential_(generator=generator)
    # The CPU's exponential_ can return 0, whose logarithm would make the softmax NaN.
    return exponential.clamp_min_(torch.finfo(dtype).tiny).log_().neg_()


class _StraightThrough(torch.autograd.Function):
    """One-hot argmax over dimension 1 forward, the softmax's gradient backward."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, logits: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(logits.softmax(dim=1))
        return _one_hot(logits)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient: torch.Tensor) -> torch.Tensor:
        (soft,) = ctx.saved_tensors
        return torch.ops.aten._softmax_backward_data(gradient.to(soft.dtype), soft, 1, soft.dtype)


def _one_hot(logits: torch.Tensor) -> torch.Tensor:
    """(B, G, N) -> the same shape, 1 at the largest of dimension 1 (the first of equals), 0 elsewhere."""
    return torch.zeros_like(logits).scatter_(1, logits.argmax(dim=1, keepdim=True), 1.0)


def hard_assignment(logits: torch.Tensor, noise: torch.Tensor | None = None) -> torch.Tensor:
    """Every segment to exactly one group: (B, G, N) logits -> (B, G, N) of 0 and 1.

    The gradient is that of ``softmax(logits + noise, dim=1)`` (straight-through; temperature 1).
    """
    return _StraightThrough.apply(logits if noise is None else logits + noise)


class TokenMixer(nn.Module):
    """MLP across tokens, the same for every channel: (B, tokens, C) -> (B, new_tokens, C)."""

    def __init__(self, tokens: int, hidden: int, new_tokens: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(tokens, hidden)
        self.fc2 = nn.Linear(hidden, new_tokens)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, tokens, C) -> (B, new_tokens, C)."""
        # weight @ x mixes the tokens in place; nn.Linear would need a transposed copy each way
        hidden = functional.gelu(self.fc1.weight @ x + self.fc1.bias[:, None])
        return self.fc2.weight @ hidden + self.fc2.bias[:, None]


class AssignAttention(nn.Module):
    """One-head attention whose map is a hard assignment of segments to groups.

    Logits are scaled by width^-0.5 and computed in float32, as are the noise and the softmax over groups.
    A group's value is the sum of its segments divided by (their number + 1).

    ``centred``: each group's logits have mean 0 over the segments, so that groups compete by where they are liked
    and not by how much they are liked everywhere. Without it the group that suits all segments best takes nearly all.
    """

    def __init__(self, width: int, gumbel: bool, centred: bool = False) -> None:
        super().__init__()
        self.centred = centred
        self.scale = width**-0.5
        self.gumbel = gumbel
        self.q = Linear(width, width)
        self.k = Linear(width, width)
        self.v = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(
        self, groups: torch.Tensor, segments: torch.Tensor, with_map: bool, generator: torch.Generator | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """groups (B, G, C), segments (B, N, C) -> values (B, G, C), soft map (B, G, N) float32 or None."""
        logits = self._logits(self.q(groups), self.k(segments))
        noise = gumbel_noise(logits, generator) if self.training and self.gumbel else None
        assignment = hard_assignment(logits, noise)
        share = assignment / (assignment.sum(dim=-1, keepdim=True) + 1.0)
        # The value projection is linear, so it is applied after merging: to G rows instead of N.
        merged = share.to(segments.dtype) @ segments
        weight = share.sum(dim=-1, keepdim=True)
        values = functional.linear(merged, self.v.weight) + (weight * self.v.bias).to(merged.dtype)
        return self.out(values), logits.softmax(dim=1) if with_map else None

    def _logits(self, q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
        with torch.autocast(q.device.type, enabled=False):
            if q.dtype != torch.float64:
                q, k = q.float(), k.float()
            logits = (q * self.scale) @ k.transpose(-2, -1)
            return logits - logits.mean(dim=-1, keepdim=True) if self.centred else logits


class Grouping(nn.Module):
    """Merges N segments into as many as there are group tokens, by their learned similarity."""

    def __init__(
        self, width: int, heads: int, mlp_ratio: float, group_tokens: int, gumbel: bool, centred: bool = False
    ) -> None:
        super().__init__()
        hidden = int(width * mlp_ratio)
        self.norm_groups = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.norm_segments = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.mixer = TokenMixer(group_tokens, width // 2, group_tokens)
        self.norm_mixed = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.cross = CrossAttention(width, heads)
        self.norm_cross = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.cross_mlp = Mlp(width, hidden)
        self.norm_cross_out = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.assign = AssignAttention(width, gumbel, centred)
        self.norm_merged = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.merged_mlp = Mlp(width, hidden)

    def forward(
        self,
        segments: torch.Tensor,
        groups: torch.Tensor,
        with_map: bool = False,
        generator: torch.Generator | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """segments (B, N, C), groups (B, G, C) -> new segments (B, G, C), soft map (B, G, N) or None."""
        segments = self.norm_segments(segments)
        groups = self.norm_mixed(self.mixer(self.norm_groups(groups)))
        groups = groups + self.cross(groups, segments)
        groups = self.norm_cross_out(groups + self.cross_mlp(self.norm_cross(groups)))
        values, soft_map = self.assign(groups, segments, with_map, generator)
        merged = values + groups
        return merged + self.merged_mlp(self.norm_merged(merged)), soft_map
