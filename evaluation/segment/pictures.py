"""What segment shows of a photo: its classes and groups with lines between them, and the mask itself."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image

from evaluation.pictures import blend, colours

__all__ = ["blended", "group_picture", "indexed_mask"]


def indexed_mask(labels: np.ndarray, palette: np.ndarray) -> Image.Image:
    """Class indices as a PNG's pixels, with colours: one byte each, or (above 256 classes) two and no colours."""
    if len(palette) > 256:
        return Image.fromarray(labels.astype(np.uint16))
    mask = Image.fromarray(labels.astype(np.uint8)).convert("P")
    mask.putpalette(palette.tobytes())
    return mask


def blended(
    shown: np.ndarray, labels: np.ndarray, palette: np.ndarray, plain: Sequence[int] = ()
) -> np.ndarray:
    """Labels of any size laid over the photo as it is shown, with lines between classes; uint8 (H, W, 3)."""
    fitted = _fit(labels, shown)
    picture = blend(shown, fitted, palette, plain)
    return _with_edges(picture, fitted)


def group_picture(shown: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Each group in its colour over the photo; uint8 (H, W, 3)."""
    return blended(shown, groups, colours(int(groups.max()) + 1))


def _fit(labels: np.ndarray, shown: np.ndarray) -> np.ndarray:
    size = (shown.shape[1], shown.shape[0])
    return cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST)


def _with_edges(picture: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """A light line, one pixel wide, where labels change."""
    edges = np.zeros(labels.shape, bool)
    edges[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    edges[1:] |= labels[1:] != labels[:-1]
    picture[edges] = 255
    return picture
