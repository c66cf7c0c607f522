"""A photo, its true masks and the predicted ones side by side, with the names of the colours."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image, ImageDraw

from evaluation.class_names import BACKGROUND

__all__ = ["blend", "comparison"]

_WIDEST = 480
_LINE = 16
_STRENGTH = 0.6


def blend(
    photo: np.ndarray, labels: np.ndarray, palette: np.ndarray, plain: Sequence[int] = ()
) -> np.ndarray:
    """Colours laid over a photo.

    Args:
        photo: (H, W, 3) uint8 RGB.
        labels: (H, W) integers; those without a colour leave the photo as it is.
        palette: (C, 3) uint8.
        plain: labels that get no colour.

    Returns:
        (H, W, 3) uint8.
    """
    coloured = (labels >= 0) & (labels < len(palette)) & ~np.isin(labels, list(plain))
    colours = palette[np.where(coloured, labels, 0)]
    mixed = (1 - _STRENGTH) * photo + _STRENGTH * colours
    return np.where(coloured[..., None], mixed, photo).round().astype(np.uint8)


def comparison(
    photo: np.ndarray, truth: np.ndarray, guess: np.ndarray, classes: Sequence[str], palette: np.ndarray
) -> Image.Image:
    """``photo`` (H, W, 3) uint8 RGB, ``truth`` and ``guess`` (H, W) side by side, a legend of their classes below."""
    plain = [number for number, name in enumerate(classes) if name == BACKGROUND]
    panels = [_fit(photo), *(_fit(blend(photo, labels, palette, plain)) for labels in (truth, guess))]
    present = [int(n) for n in np.union1d(truth, guess) if n < len(classes) and n not in plain]
    picture = np.concatenate(panels, axis=1)
    return _with_legend(picture, [(classes[n], tuple(map(int, palette[n]))) for n in present])


def _fit(panel: np.ndarray) -> np.ndarray:
    factor = min(1.0, _WIDEST / panel.shape[1])
    return cv2.resize(panel, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)


def _with_legend(picture: np.ndarray, entries: list[tuple[str, tuple[int, ...]]]) -> Image.Image:
    height, width = picture.shape[:2]
    heads = ("photo", "truth", "prediction")
    canvas = Image.new("RGB", (width, height + _LINE * (2 + _rows(entries, width))), "white")
    canvas.paste(Image.fromarray(picture), (0, _LINE))
    draw = ImageDraw.Draw(canvas)
    for number, head in enumerate(heads):
        draw.text((number * width // 3 + 4, 2), head, fill="black")
    x, y = 4, height + _LINE + 4
    for name, colour in entries:
        step = _entry_width(name)
        if x > 4 and x + step > width:
            x, y = 4, y + _LINE
        draw.rectangle((x, y + 1, x + 10, y + 11), fill=colour)
        draw.text((x + 14, y), name, fill="black")
        x += step
    return canvas


def _entry_width(name: str) -> int:
    return 26 + round(ImageDraw.Draw(Image.new("L", (1, 1))).textlength(name))


def _rows(entries: list[tuple[str, tuple[int, ...]]], width: int) -> int:
    rows, x = 1, 4
    for name, _ in entries:
        step = _entry_width(name)
        if x > 4 and x + step > width:
            rows, x = rows + 1, 4
        x += step
    return rows
