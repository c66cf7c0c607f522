"""Grouping maps of a few fixed images: how the model cuts them up."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional

from models.groupvit import GroupViT
from models.pixels import normalise

__all__ = ["grouping_picture"]


def _palette(count: int) -> np.ndarray:
    """uint8 (count, 3): hues in golden-angle steps, so that neighbours in number differ in colour."""
    import colorsys

    shades = [
        colorsys.hsv_to_rgb(k * 0.618034 % 1.0, 0.75 - 0.3 * (k % 3) / 2, 0.95 - 0.25 * (k % 2))
        for k in range(count)
    ]
    return (np.array(shades) * 255).astype(np.uint8)


@torch.no_grad()
def grouping_picture(model: GroupViT, images: torch.Tensor) -> np.ndarray:
    """uint8 images (n, H, W, 3) -> uint8 (n H, 3 W, 3): a row each of picture, first groups, last segments."""
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    found = model.encode_image(normalise(images.to(device)), with_maps=True)
    model.train(was_training)
    maps, grouped = [], None
    for soft in found.assignments:
        grouped = soft if grouped is None else soft @ grouped
        maps.append(grouped)
    columns = [images.cpu().numpy()]
    for chosen in (maps[0], maps[-1]):
        columns.append(_coloured(chosen, found.grid, images.shape[1:3]))
    return np.concatenate(np.concatenate(columns, axis=2), axis=0)


def _coloured(soft: torch.Tensor, grid: tuple[int, int], size: torch.Size) -> np.ndarray:
    """(n, G, N) shares of patches -> uint8 (n, H, W, 3): the colour of each pixel's largest group."""
    planes = soft.unflatten(2, grid).float()
    sharp = functional.interpolate(planes, size=tuple(size), mode="bilinear", align_corners=False)
    return _palette(soft.shape[1])[sharp.argmax(dim=1).cpu().numpy()]
