"""The causal text transformer (CLIP's, at GroupViT's size)."""

from __future__ import annotations

import torch
from torch import nn

from models.blocks import LAYER_NORM_EPS, Block, quick_gelu
from models.groupvit_config import GroupViTConfig

__all__ = ["TextEncoder"]


class TextEncoder(nn.Module):
    """Tokens (n, T) int64 -> features (n, text_width) at each text's end token.

    The end token has the highest id, so its first place is the argmax. Attention is causal: tokens
    behind the end change nothing, and columns that only hold such tokens may be cut off.
    """

    def __init__(self, config: GroupViTConfig) -> None:
        super().__init__()
        width = config.text_width
        self.tokens = nn.Embedding(config.vocab_size, width)
        self.positions = nn.Parameter(torch.zeros(config.context_length, width))
        self.blocks = nn.ModuleList(
            Block(width, config.text_heads, 4.0, causal=True, activation=quick_gelu)
            for _ in range(config.text_layers)
        )
        self.norm = nn.LayerNorm(width, eps=LAYER_NORM_EPS)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Tokens (n, T) int64 -> (n, text_width)."""
        if tokens.shape[-1] > len(self.positions):
            raise ValueError(
                f"texts of {tokens.shape[-1]} tokens, the model's context is {len(self.positions)}: "
                f"tokenize with context_length={len(self.positions)}"
            )
        ends = tokens.argmax(dim=-1)
        if tokens.device.type == "cpu":  # elsewhere it would wait for the device; loaders cut there
            return self._encode_by_length(tokens, ends)
        return self._encode(tokens, ends)

    def _encode_by_length(self, tokens: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
        """Texts of like length together, each group cut behind its longest text: the same features."""
        groups = torch.div(ends, _LENGTH_STEP, rounding_mode="floor")
        features, order = [], []
        for group in groups.unique().tolist():
            rows = (groups == group).nonzero().squeeze(1)
            longest = int(ends[rows].max()) + 1
            features.append(self._encode(tokens[rows, :longest], ends[rows]))
            order.append(rows)
        if len(features) == 1:
            return features[0]
        return torch.cat(features)[torch.cat(order).argsort()]

    def _encode(self, tokens: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
        x = self.tokens(tokens) + self.positions[: tokens.shape[-1]]
        for block in self.blocks:
            x = block(x)
        return self.norm(x[torch.arange(len(x), device=x.device), ends])


_LENGTH_STEP = 16
