"""Reads label masks."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

__all__ = ["decode_mask"]


def decode_mask(content: bytes) -> np.ndarray:
    """A PNG mask -> int64 (H, W): palette indices or grey values of 8 or 16 bits; of RGB, R + 256 G."""
    with Image.open(io.BytesIO(content)) as image:
        mask = np.asarray(image)
    if mask.ndim == 3:
        return mask[..., 0].astype(np.int64) + 256 * mask[..., 1].astype(np.int64)
    return mask.astype(np.int64)
