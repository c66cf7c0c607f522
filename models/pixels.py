"""Pixels as GroupViT takes them: ImageNet's mean and deviation, taken out on the device of the model."""

from __future__ import annotations

from functools import lru_cache

import torch

__all__ = ["MEAN", "STD", "normalise"]

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
"""Of ImageNet's pixels in [0, 1], red, green, blue: GroupViT's (and timm's) defaults."""


def normalise(images: torch.Tensor) -> torch.Tensor:
    """uint8 (n, H, W, 3) RGB -> float32 (n, 3, H, W), mean 0 and deviation 1 over ImageNet.

    Bytes travel to the device and become floats there: a quarter of the copy.
    """
    mean, scale = _constants(images.device)
    return images.permute(0, 3, 1, 2).float().sub_(mean).mul_(scale).contiguous()


@lru_cache(maxsize=16)
def _constants(device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Brought to a device once: each time anew, the step would wait for two copies."""
    with torch.inference_mode(False):
        mean = torch.tensor(MEAN, device=device).view(3, 1, 1) * 255
        return mean, 1 / (torch.tensor(STD, device=device).view(3, 1, 1) * 255)
