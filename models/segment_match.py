"""Prompts matched to the segments of an image, beside or instead of their mean.

GroupViT trains the mean of an image's segments alone, so that no single one has to be like the text that names it; a
small model's segments then cannot be named (docs/training.md). Here the similarity of an image and a prompt is a
mean over segments that leans to those most like the prompt.
"""

from __future__ import annotations

import torch

__all__ = ["MAX_SHARPNESS", "match_segments"]

MAX_SHARPNESS = 20.0
"""Of the softmax over segments: beyond, only the best segment of each text would learn."""


def match_segments(segments: torch.Tensor, texts: torch.Tensor, scale: torch.Tensor | float) -> torch.Tensor:
    """s(i, t) = sum over g of w_g cos(g, t), w = softmax over g of (min(scale, 20) cos(g, t)).

    Args:
        segments: (n, G, E), unit rows.
        texts: (m, E), unit rows.
        scale: the inverse temperature of the loss.

    Returns:
        (n, m) in [-1, 1].
    """
    cosines = segments @ texts.T
    sharpness = (
        scale.clamp(max=MAX_SHARPNESS) if isinstance(scale, torch.Tensor) else min(scale, MAX_SHARPNESS)
    )
    return ((sharpness * cosines).softmax(dim=1) * cosines).sum(dim=1)
