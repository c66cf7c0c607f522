"""What evaluation shows of a photo: colours laid over it, and a legend of their names below."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from functools import lru_cache

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from evaluation.class_names import BACKGROUND

__all__ = ["blend", "class_palette", "colours", "comparison", "css_colour", "with_legend"]

_STRENGTH = 0.6
_GOLDEN = 0.618033988749895
_TEXT = 1 / 40  # of the picture's width, within bounds
_SMALLEST, _LARGEST = 14, 32
_MARGIN = 8
_WIDEST = 480  # of a panel of a comparison
_HEADS = ("photo", "truth", "prediction", "groups")


def colours(count: int) -> np.ndarray:
    """(count, 3) uint8 RGB: hues a golden section apart, three degrees of lightness in turn."""
    values = [
        colorsys.hsv_to_rgb(
            (0.03 + number * _GOLDEN) % 1, (0.85, 0.55, 0.95)[number % 3], (0.92, 0.98, 0.62)[number % 3]
        )
        for number in range(count)
    ]
    return np.round(np.array(values).reshape(count, 3) * 255).astype(np.uint8)


def class_palette(classes: Sequence[str]) -> np.ndarray:
    """(C, 3) uint8 RGB, one colour a class; the background, where it is first, is black."""
    if not classes or classes[0] != BACKGROUND:
        return colours(len(classes))
    return np.concatenate([np.zeros((1, 3), np.uint8), colours(len(classes) - 1)])


def css_colour(colour: np.ndarray) -> str:
    """#rrggbb."""
    return "#" + bytes(colour.astype(np.uint8)).hex()


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
    mixed = (1 - _STRENGTH) * photo + _STRENGTH * palette[np.where(coloured, labels, 0)]
    return np.where(coloured[..., None], mixed, photo).round().astype(np.uint8)


def comparison(
    photo: np.ndarray,
    truth: np.ndarray,
    guess: np.ndarray,
    classes: Sequence[str],
    groups: np.ndarray | None = None,
) -> Image.Image:
    """Panels side by side, a legend of the classes in them below.

    Args:
        photo: (H, W, 3) uint8 RGB.
        truth: (H, W) class numbers.
        guess: the model's.
        classes: their names.
        groups: (H, W) numbers of the segments that the model took the photo apart into, a fourth panel.
    """
    palette = class_palette(classes)
    plain = [number for number, name in enumerate(classes) if name == BACKGROUND]
    panels = [photo, *(blend(photo, labels, palette, plain) for labels in (truth, guess))]
    if groups is not None:
        panels.append(blend(photo, groups, colours(int(groups.max()) + 1)))
    picture = np.concatenate([_headed(*pair) for pair in zip(panels, _HEADS, strict=False)], axis=1)
    present = [int(n) for n in np.union1d(truth, guess) if n < len(classes) and n not in plain]
    return with_legend(picture, [(classes[n], palette[n]) for n in present])


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


def _headed(panel: np.ndarray, head: str) -> np.ndarray:
    """A panel, made smaller if it is wide, below its name."""
    factor = min(1.0, _WIDEST / panel.shape[1])
    fitted = cv2.resize(panel, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    line = Image.new("RGB", (fitted.shape[1], _SMALLEST + 4), "white")
    ImageDraw.Draw(line).text((4, 0), head, fill="black", font=_font(_SMALLEST))
    return np.concatenate([np.asarray(line), fitted])


@lru_cache(maxsize=32)
def _font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which matplotlib ships: it has Latin, Greek and Cyrillic letters."""
    from matplotlib.font_manager import findfont

    return ImageFont.truetype(findfont("DejaVu Sans"), size)
