"""Pixels as GroupViT takes them: ImageNet's mean and deviation, taken out on the device of the model."""

from __future__ import annotations

import torch

__all__ = ["MEAN", "STD", "normalise"]

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
"""Of ImageNet's pixels in [0, 1], red, green, blue: GroupViT's (and timm's) defaults."""


def normalise(images: torch.Tensor) -> torch.Tensor:
    """uint8 (n, H, W, 3) RGB -> float32 (n, 3, H, W), mean 0 and deviation 1 over ImageNet.

    Bytes travel to the device and become floats there: a quarter of the copy.
    """
    mean = torch.tensor(MEAN, device=images.device).view(3, 1, 1) * 255
    scale = 1 / (torch.tensor(STD, device=images.device).view(3, 1, 1) * 255)
    return images.permute(0, 3, 1, 2).float().sub_(mean).mul_(scale).contiguous()
