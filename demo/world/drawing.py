"""A pen that draws one thing into a picture and its instance map at the same time.

Coordinates are the thing's own: y runs up from 0 (its foot) to about 1 (its top), x is centred on 0, and one
unit is the thing's height. The pen turns, mirrors, scales and places them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np

from demo.world.colours import Colour

__all__ = ["Pen", "noise_patch", "shade"]

Point = tuple[float, float]

_SHIFT = 4
_SUBPIXEL = 1 << _SHIFT
_CIRCLE = np.linspace(0.0, 2 * np.pi, 20, endpoint=False)
_COS, _SIN = np.cos(_CIRCLE), np.sin(_CIRCLE)


class Pen:
    """Draws parts of one instance; ``image`` is (H, W, 3) uint8 RGB, ``instances`` (H, W) uint8."""

    def __init__(
        self,
        image: np.ndarray,
        instances: np.ndarray,
        instance: int,
        foot: tuple[float, float],
        height: float,
        *,
        turn: float = 0.0,
        mirror: bool = False,
        stretch: float = 1.0,
    ) -> None:
        """``foot`` is the pixel (x, y) where (0, 0) lands, ``height`` pixels a unit, ``turn`` in radians."""
        self.image, self.instances, self.instance = image, instances, instance
        across = height * stretch * (-1 if mirror else 1)
        cos, sin = np.cos(turn), np.sin(turn)
        self._matrix = np.array([[across * cos, height * sin], [across * sin, -height * cos]])
        self._foot = np.array(foot, dtype=np.float64)
        self.height = height
        self.low = np.array([np.inf, np.inf])
        self.high = -self.low

    def _fill(self, points: np.ndarray, colour: Colour) -> None:
        pixels = points @ self._matrix.T + self._foot
        self.low = np.minimum(self.low, pixels.min(0))
        self.high = np.maximum(self.high, pixels.max(0))
        fixed = np.round(pixels * _SUBPIXEL).astype(np.int32)[None]
        cv2.fillPoly(self.image, fixed, colour, cv2.LINE_AA, _SHIFT)
        cv2.fillPoly(self.instances, fixed, self.instance, cv2.LINE_8, _SHIFT)

    def polygon(self, points: Sequence[Point], colour: Colour) -> None:
        """Fill a polygon given by its corners."""
        self._fill(np.asarray(points, dtype=np.float64), colour)

    def box(self, left: float, bottom: float, right: float, top: float, colour: Colour) -> None:
        """Fill an upright rectangle."""
        self.polygon([(left, bottom), (right, bottom), (right, top), (left, top)], colour)

    def ellipse(self, x: float, y: float, rx: float, ry: float, colour: Colour, tilt: float = 0.0) -> None:
        """Fill an ellipse with half axes ``rx``, ``ry``, turned by ``tilt`` radians."""
        cos, sin = math.cos(tilt), math.sin(tilt)
        across, up = rx * _COS, ry * _SIN
        self._fill(np.stack([x + across * cos - up * sin, y + across * sin + up * cos], 1), colour)

    def stroke(self, start: Point, end: Point, width: float, colour: Colour) -> None:
        """A straight bar of ``width`` from ``start`` to ``end``."""
        (x0, y0), (x1, y1) = start, end
        length = max(math.hypot(x1 - x0, y1 - y0), 1e-6)
        across, up = -(y1 - y0) / length * width / 2, (x1 - x0) / length * width / 2
        self.polygon(
            [(x0 + across, y0 + up), (x1 + across, y1 + up), (x1 - across, y1 - up), (x0 - across, y0 - up)],
            colour,
        )

    def ring(self, x: float, y: float, radius: float, width: float, colour: Colour) -> None:
        """An open ring (a wheel's tyre), of which only the rim belongs to the thing."""
        centre = self._matrix @ np.array([x, y]) + self._foot
        reach = (radius + width) * self.height
        self.low, self.high = np.minimum(self.low, centre - reach), np.maximum(self.high, centre + reach)
        fixed = tuple(int(v) for v in np.round(centre * _SUBPIXEL))
        pixels, thick = round(radius * self.height * _SUBPIXEL), max(1, round(width * self.height))
        cv2.circle(self.image, fixed, pixels, colour, thick, cv2.LINE_AA, _SHIFT)
        cv2.circle(self.instances, fixed, pixels, self.instance, thick, cv2.LINE_8, _SHIFT)

    def bounds(self) -> tuple[slice, slice] | None:
        """Rows and columns of the picture that the pen touched, or None."""
        rows, columns = self.instances.shape
        if not np.isfinite(self.low).all():
            return None
        x0, y0 = np.maximum(np.floor(self.low).astype(int) - 1, 0)
        x1, y1 = np.minimum(np.ceil(self.high).astype(int) + 2, (columns, rows))
        return (slice(y0, y1), slice(x0, x1)) if x0 < x1 and y0 < y1 else None


def _noise_bank() -> np.ndarray:
    """(4, 384, 384) float32 fields in about [-1, 1], from fine grain to wide clouds."""
    rng = np.random.default_rng(7)
    fields = []
    for cell in (1, 4, 14, 48):
        side = 384 // cell + 2
        field = cv2.resize(
            rng.standard_normal((side, side)).astype(np.float32), (384, 384), interpolation=cv2.INTER_CUBIC
        )
        fields.append(field / (2 * field.std()))
    return np.stack(fields)


_NOISE = _noise_bank()


def noise_patch(rng: np.random.Generator, rows: int, columns: int, scale: int) -> np.ndarray:
    """A (rows, columns) float32 piece of noise; ``scale`` 0 is grain, 3 is clouds."""
    y, x = rng.integers(0, 384 - rows + 1), rng.integers(0, 384 - columns + 1)
    return _NOISE[scale, y : y + rows, x : x + columns]


def shade(pen: Pen, rng: np.random.Generator, light: float, texture: float, grain: int) -> None:
    """Give the instance volume: light falls from one side (``light`` signed strength) and a texture covers it."""
    bounds = pen.bounds()
    if bounds is None:
        return
    patch = pen.image[bounds]
    rows, columns = patch.shape[:2]
    if rows > 384 or columns > 384:
        return
    ramp = np.linspace(light, -light, columns, dtype=np.float32)[None, :]
    fall = np.linspace(0.10, -0.14, rows, dtype=np.float32)[:, None]
    factor = 1.0 + ramp + fall + texture * noise_patch(rng, rows, columns, grain)
    lit = np.minimum(patch * factor[..., None], 255).astype(np.uint8)
    cv2.copyTo(lit, (pen.instances[bounds] == pen.instance).astype(np.uint8), patch)
