"""The causal text transformer (CLIP's, at GroupViT's size)."""

from __future__ import annotations

import torch
from torch import nn

from models.groupvit_config import GroupViTConfig
from models.layers.blocks import LAYER_NORM_EPS, Block, quick_gelu

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
        order = ends.argsort(stable=True)
        features = []
        for rows in order.split(_split_by_length((ends[order] + 1).tolist())):
            longest = int(ends[rows[-1]]) + 1
            features.append(self._encode(tokens[rows, :longest], ends[rows]))
        return torch.cat(features)[order.argsort()]

    def _encode(self, tokens: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
        x = self.tokens(tokens) + self.positions[: tokens.shape[-1]]
        for block in self.blocks:
            x = block(x)
        return self.norm(x[torch.arange(len(x), device=x.device), ends])


def _split_by_length(lengths: list[int]) -> list[int]:
    """Ascending lengths -> the sizes of successive groups that are worth encoding apart.

    A group of its own costs a pass over the layers' weights, so it must save some hundred tokens:
    a cut is made, from the longest down, where cutting all shorter texts saves that many.
    """
    sizes: list[int] = []
    end = len(lengths)
    for row in range(len(lengths) - 1, 0, -1):
        if row * (lengths[end - 1] - lengths[row - 1]) >= _TOKENS_WORTH_A_PASS:
            sizes.append(end - row)
            end = row
    return [end, *reversed(sizes)]


_TOKENS_WORTH_A_PASS = 400
