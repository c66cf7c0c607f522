"""GroupViT's image encoder: patches, stages of blocks, grouping between them."""

from __future__ import annotations

from typing import Self

import torch
from torch import nn
from torch.nn import functional

from models.groupvit_config import GroupViTConfig
from models.layers.blocks import LAYER_NORM_EPS, Block
from models.layers.grouping import Grouping, TokenMixer
from models.layers.stem import ConvolutionStem

__all__ = ["ImageEncoder", "PatchEmbedding"]

_CACHED_SIZES = 8


class PatchProjection(nn.Conv2d):
    """The paper's: each patch by one linear map, (B, 3, H, W) -> (B, N, width)."""

    def __init__(self, patch: int, width: int) -> None:
        super().__init__(3, width, kernel_size=patch, stride=patch)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images (B, 3, H, W) -> (B, N, width)."""
        patch = self.kernel_size[0]
        rows, columns = images.shape[-2] // patch, images.shape[-1] // patch
        # A patch never overlaps another, so the convolution is one matrix product over cut-out patches.
        patches = images.unflatten(-1, (columns, patch)).unflatten(-3, (rows, patch))
        patches = patches.permute(0, 2, 4, 1, 3, 5).reshape(len(images), rows * columns, -1)
        return functional.linear(patches, self.weight.flatten(1), self.bias)


class PatchEmbedding(nn.Module):
    """(B, 3, H, W) -> (B, N, width): one vector a patch, normalised, plus its learned position."""

    def __init__(self, config: GroupViTConfig) -> None:
        super().__init__()
        self.patch = config.patch_size
        self.grid = config.grid
        self.projection = (
            PatchProjection(self.patch, config.width)
            if config.stem == "linear"
            else ConvolutionStem(self.patch, config.width)
        )
        self.norm = nn.LayerNorm(config.width, eps=LAYER_NORM_EPS)
        self.positions = nn.Parameter(torch.zeros(1, self.grid**2, config.width))
        self._resized: dict[tuple[int, int], tuple[tuple[object, ...], torch.Tensor]] = {}

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images (B, 3, H, W) -> (B, N, width)."""
        height, width = images.shape[-2:]
        if height % self.patch or width % self.patch:
            raise ValueError(
                f"images of {height} x {width} pixels do not divide into patches of {self.patch}; resize or pad them"
            )
        embedded = self.norm(self.projection(images))
        return embedded + self.positions_for(height // self.patch, width // self.patch)

    def train(self, mode: bool = True) -> Self:
        """As ever; what was kept of the positions is let go, since the fused optimiser changes them unseen."""
        self._resized.clear()
        return super().train(mode)

    def positions_for(self, rows: int, columns: int) -> torch.Tensor:
        """Positions (1, rows * columns, width), resized bicubically where the grid differs.

        Without gradients the result is kept, for the last few sizes, until the weights change.
        """
        if rows == columns == self.grid:
            return self.positions
        if torch.is_grad_enabled():
            return self._resize(rows, columns)
        state = (
            self.positions._version,
            self.positions.data_ptr(),
            self.positions.dtype,
            self.positions.device,
        )
        known = self._resized.get((rows, columns))
        if known is None or known[0] != state:
            while len(self._resized) >= _CACHED_SIZES:
                self._resized.pop(next(iter(self._resized)))
            self._resized[rows, columns] = known = (state, self._resize(rows, columns))
        return known[1]

    def _resize(self, rows: int, columns: int) -> torch.Tensor:
        square = self.positions.unflatten(1, (self.grid, self.grid)).permute(0, 3, 1, 2)
        resized = functional.interpolate(square, size=(rows, columns), mode="bicubic", align_corners=False)
        return resized.flatten(2).transpose(1, 2)


class Stage(nn.Module):
    """Blocks over segments and group tokens together, then grouping (except in the last stage)."""

    def __init__(self, config: GroupViTConfig, number: int, drop_rates: list[float]) -> None:
        super().__init__()
        width, tokens = config.width, config.group_tokens[number]
        before = config.group_tokens[number - 1] if number else 0
        self.blocks = nn.ModuleList(Block(width, config.heads, config.mlp_ratio, rate) for rate in drop_rates)
        self.group_tokens = nn.Parameter(torch.zeros(1, tokens, width)) if tokens else None
        self.grouping = None
        if tokens:
            self.grouping = Grouping(
                width, config.heads, config.mlp_ratio, tokens, config.gumbel_noise, config.assign_centred
            )
        self.carry = None
        if tokens and before:
            norm = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
            self.carry = nn.Sequential(norm, TokenMixer(before, width // 2, tokens))

    def forward(
        self,
        segments: torch.Tensor,
        groups_before: torch.Tensor | None,
        with_map: bool,
        generator: torch.Generator | None,
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """segments (B, N, C), the earlier stage's group tokens -> new segments, group tokens, soft map."""
        if self.group_tokens is None or self.grouping is None:
            for block in self.blocks:
                segments = block(segments, generator)
            return segments, None, None
        groups = self.group_tokens.expand(len(segments), -1, -1)
        if self.carry is not None and groups_before is not None:
            groups = groups + self.carry(groups_before)
        count = segments.shape[1]
        tokens = torch.cat([segments, groups.to(segments.dtype)], dim=1)
        for block in self.blocks:
            tokens = block(tokens, generator)
        segments, groups = tokens.split([count, groups.shape[1]], dim=1)
        merged, soft_map = self.grouping(segments, groups, with_map, generator)
        return merged, groups, soft_map


class ImageEncoder(nn.Module):
    """(B, 3, H, W) float -> segments (B, G, width) after the last norm, and the soft maps of the stages."""

    def __init__(self, config: GroupViTConfig) -> None:
        super().__init__()
        self.embedding = PatchEmbedding(config)
        rates = torch.linspace(0.0, config.drop_path, sum(config.depths)).tolist()
        starts = [sum(config.depths[:number]) for number in range(len(config.depths))]
        self.stages = nn.ModuleList(
            Stage(config, number, rates[start : start + depth])
            for number, (start, depth) in enumerate(zip(starts, config.depths, strict=True))
        )
        self.norm = nn.LayerNorm(config.width, eps=LAYER_NORM_EPS)

    def forward(
        self, images: torch.Tensor, with_maps: bool = False, generator: torch.Generator | None = None
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        """Soft maps: (B, 64, N) and (B, 8, 64) float32 at the paper's size; none unless ``with_maps``."""
        segments, groups, maps = self.embedding(images), None, []
        for stage in self.stages:
            segments, groups, soft_map = stage(segments, groups, with_maps, generator)
            if soft_map is not None:
                maps.append(soft_map)
        return self.norm(segments), tuple(maps)
