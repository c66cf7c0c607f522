"""A PNG mask -> class numbers, however the channels were saved."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

__all__ = ["MaskError", "decode_mask"]


class MaskError(ValueError):
    """A mask holds what it cannot hold."""


def decode_mask(content: bytes, wide: bool = False) -> np.ndarray:
    """A PNG mask -> int64 (H, W): palette indices, or grey values of 1, 8 or 16 bits.

    Grey that was saved as RGB (three equal channels) or with an opaque alpha channel is grey. With ``wide`` RGB is
    R + 256 G, as ImageNet-S publishes its masks.

    Raises:
        MaskError: colours in place of class numbers, or transparent pixels.
        OSError and others of evaluation.photos.PICTURE_ERRORS: no readable PNG.
    """
    with Image.open(io.BytesIO(content), formats=("PNG",)) as image:
        mode, mask = image.mode, np.asarray(image)
    if mode in ("LA", "RGBA"):
        if (mask[..., -1] != 255).any():
            raise MaskError(
                f"has transparent pixels (mode {mode}); save the class numbers as one grey channel"
            )
        mask = mask[..., 0] if mode == "LA" else mask[..., :3]
    if mask.ndim == 3 and wide:
        return mask[..., 0].astype(np.int64) + 256 * mask[..., 1].astype(np.int64)
    if mask.ndim == 3:
        if (mask != mask[..., :1]).any():
            raise MaskError(
                f"is a picture in colours (mode {mode}); save the class numbers as one grey channel"
            )
        mask = mask[..., 0]
    return mask.astype(np.int64)
