"""A random GroupViT whose segments and classes differ from place to place, in float64: nothing hangs on rounding.

And the protocol asked for one image or one window at a time.
"""

from __future__ import annotations

import math

import torch

from evaluation.protocol import ImageScores, Protocol, encode_windows, slide_images
from models.groupvit import GroupViT
from tests.models.hf_reference import SMALL, pair

__all__ = ["decided_model", "near_texts", "picture", "slide", "window_scores"]


def decided_model(dtype: torch.dtype = torch.float64) -> GroupViT:
    """48-pixel images, patches of 8; initial weights would give every pixel the same segment."""
    model = pair(SMALL, seed=6, dtype=dtype)[1]
    with torch.no_grad():
        for name, parameter in model.image_encoder.named_parameters():
            if ".assign.q.weight" in name or ".assign.k.weight" in name:
                parameter.mul_(8)
            if "embedding.projection.weight" in name:
                parameter.mul_(10)
            if "group_tokens" in name or ("blocks" in name and parameter.ndim == 2):
                parameter.mul_(4)
        model.logit_scale.fill_(math.log(40.0))
    return model


def picture(height: int, width: int, seed: int = 0) -> torch.Tensor:
    """(3, height, width) float64: blobs of colour and noise."""
    generator = torch.Generator().manual_seed(seed)
    blobs = torch.randn(
        1, 3, max(height // 9, 2), max(width // 9, 2), dtype=torch.float64, generator=generator
    )
    smooth = torch.nn.functional.interpolate(blobs, (height, width), mode="bilinear")[0]
    return smooth * 2 + 0.3 * torch.randn(3, height, width, dtype=torch.float64, generator=generator)


@torch.no_grad()
def near_texts(model: GroupViT, count: int) -> torch.Tensor:
    """(count, E) unit rows near the segments of some pictures, so that no class wins everywhere."""
    generator = torch.Generator().manual_seed(5)
    windows = torch.stack([picture(48, 48, seed) for seed in range(20, 26)])
    segments = model.encode_image(windows).segments
    assert segments is not None
    segments = unit(segments.flatten(0, 1))
    chosen = segments[torch.randperm(len(segments), generator=generator)[:count]]
    noise = torch.randn(chosen.shape, dtype=torch.float64, generator=generator)
    return unit(unit(chosen - segments.mean(dim=0)) + 0.8 * unit(noise))


def unit(rows: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.normalize(rows, dim=-1)


def slide(
    model: GroupViT,
    image: torch.Tensor,
    texts: torch.Tensor,
    window: int,
    stride: int,
    background_threshold: float | None = None,
    top: int = 5,
    max_windows: int | None = None,
) -> ImageScores:
    """The scores of one image."""
    protocol = Protocol(window=window, stride=stride, background_threshold=background_threshold, top=top)
    return next(slide_images(model, [image], texts, protocol, max_windows))


def window_scores(model: GroupViT, windows: torch.Tensor, texts: torch.Tensor) -> torch.Tensor:
    """Windows (B, 3, h, w) -> class scores of every pixel (B, C, h, w), without background."""
    found = encode_windows(model, windows, texts)
    by_pixel = [scores[segments] for scores, segments in zip(found.scores, found.segments, strict=True)]
    return torch.stack(by_pixel).permute(0, 3, 1, 2)
