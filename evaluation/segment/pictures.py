"""What segment shows of a photo: colours laid over it, a legend, the groups."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from functools import lru_cache

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from evaluation.pictures import blend

__all__ = ["blended", "colours", "css_colour", "group_picture", "indexed_mask", "with_legend"]

_GOLDEN = 0.618033988749895
_TEXT = 1 / 40  # of the picture's width, within bounds
_SMALLEST, _LARGEST = 14, 32
_MARGIN = 8


def colours(count: int) -> np.ndarray:
    """(count, 3) uint8 RGB: hues a golden section apart, three degrees of lightness in turn."""
    values = [
        colorsys.hsv_to_rgb(
            (0.03 + number * _GOLDEN) % 1, (0.85, 0.55, 0.95)[number % 3], (0.92, 0.98, 0.62)[number % 3]
        )
        for number in range(count)
    ]
    return np.round(np.array(values).reshape(count, 3) * 255).astype(np.uint8)


def css_colour(colour: np.ndarray) -> str:
    """#rrggbb."""
    return "#" + bytes(colour.astype(np.uint8)).hex()


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


def with_legend(picture: np.ndarray, entries: Sequence[tuple[str, np.ndarray]]) -> Image.Image:
    """The picture above a strip of colours with their names; a narrow picture gets a wider strip."""
    height, width = picture.shape[:2]
    text = round(min(max(width * _TEXT, _SMALLEST), _LARGEST))
    font = _font(text)
    lines = _lay_out(
        [(name, colour, 2 * text + int(font.getlength(name))) for name, colour in entries], width
    )
    wide = max([width, *(sum(step for _, _, step in line) + _MARGIN for line in lines)])
    line_height = round(1.5 * text)
    canvas = Image.new("RGB", (wide, height + line_height * len(lines) + _MARGIN * bool(lines)), "white")
    canvas.paste(Image.fromarray(picture))
    draw = ImageDraw.Draw(canvas)
    for number, line in enumerate(lines):
        x, y = _MARGIN, height + _MARGIN // 2 + number * line_height
        for name, colour, step in line:
            draw.rectangle(
                (x, y + text // 5, x + text, y + text // 5 + text),
                fill=tuple(map(int, colour)),
                outline="black",
            )
            draw.text((x + 1.3 * text, y), name, fill="black", font=font)
            x += step
    return canvas


def _lay_out(
    entries: Sequence[tuple[str, np.ndarray, int]], width: int
) -> list[list[tuple[str, np.ndarray, int]]]:
    """Entries in lines no wider than the picture, at least one a line."""
    lines: list[list[tuple[str, np.ndarray, int]]] = []
    filled = width
    for entry in entries:
        if filled + entry[2] > width:
            lines.append([])
            filled = _MARGIN
        lines[-1].append(entry)
        filled += entry[2]
    return lines


@lru_cache(maxsize=32)
def _font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which matplotlib ships: it has Latin, Greek and Cyrillic letters."""
    from matplotlib.font_manager import findfont

    return ImageFont.truetype(findfont("DejaVu Sans"), size)


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
