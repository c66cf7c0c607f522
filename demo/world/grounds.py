"""How skies, walls and grounds are painted: bands over the picture's full width, far to near."""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np

from demo.world.colours import Colour, dim, pick, tone
from demo.world.drawing import noise_patch

__all__ = ["GROUNDS", "paint_ground"]


def _lerp(first: Colour, last: Colour, rows: int) -> np.ndarray:
    """(rows, 1, 3) float32 from ``first`` to ``last``."""
    steps = np.linspace(0, 1, rows, dtype=np.float32)[:, None, None]
    return np.asarray(first, np.float32) * (1 - steps) + np.asarray(last, np.float32) * steps


def _profile(rng: np.random.Generator, columns: int, top: float, rough: float, waves: int) -> np.ndarray:
    """(columns,) upper edge of a band: a sum of waves of total height about ``rough``."""
    x = np.linspace(0, 2 * np.pi, columns)
    edge = np.full(columns, top)
    for number in range(1, waves + 1):
        edge += rough / number * np.sin(number * x * rng.uniform(0.5, 1.3) + rng.uniform(0, 6.3))
    return edge


def _ridge(rng: np.random.Generator, columns: int, base: float, height: float) -> np.ndarray:
    """(columns,) upper edge with peaks up to ``height`` above ``base``."""
    count = rng.integers(3, 6)
    x = np.sort(rng.uniform(-0.1, 1.1, count * 2 + 1)) * columns
    y = base - height * np.where(
        np.arange(count * 2 + 1) % 2,
        rng.uniform(0.6, 1.0, count * 2 + 1),
        rng.uniform(0.1, 0.45, count * 2 + 1),
    )
    return np.interp(np.arange(columns), x, y) + rng.normal(0, 0.6, columns)


def _crowns(rng: np.random.Generator, columns: int, base: float, height: float) -> np.ndarray:
    """(columns,) upper edge of a forest: round or pointed crowns side by side."""
    width = rng.uniform(0.05, 0.1) * columns
    phase = (np.arange(columns) + rng.uniform(0, width)) / width
    inside, crown = phase % 1.0, phase.astype(int)
    tall = rng.uniform(0.55, 1.0, crown.max() + 1)[crown]
    shape = (
        np.sqrt(np.clip(1 - (2 * inside - 1) ** 2, 0, 1))
        if rng.random() < 0.5
        else 1 - np.abs(2 * inside - 1)
    )
    return base - height * (0.35 * tall + 0.65 * tall * shape)


def _sky(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    top = pick(rng, (70, 130, 210), (100, 165, 230), (150, 175, 200), (60, 105, 180))
    band = _lerp(top, tone(rng, (205, 225, 242)), rows) + np.zeros((1, columns, 1), np.float32)
    cover = np.clip(
        noise_patch(rng, rows, columns, 3) * 1.6
        + noise_patch(rng, rows, columns, 2) * 0.6
        - rng.uniform(-0.1, 0.9),
        0,
        1,
    )
    return band + cover[..., None] * (248 - band)


def _sunset(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    top = pick(rng, (90, 60, 130), (60, 60, 120), (170, 80, 90), (120, 70, 110))
    low = pick(rng, (255, 170, 70), (250, 130, 70), (255, 200, 120))
    band = _lerp(top, low, rows) + 14 * noise_patch(rng, rows, columns, 3)[..., None]
    x, y, radius = (
        rng.uniform(0.1, 0.9) * columns,
        rng.uniform(0.5, 1.0) * rows,
        rng.uniform(0.04, 0.08) * columns,
    )
    away = np.hypot(
        np.arange(columns, dtype=np.float32)[None] - x, np.arange(rows, dtype=np.float32)[:, None] - y
    )
    band += np.clip(1.3 - away / (4 * radius), 0, 1)[..., None] * np.array([60, 50, 10], np.float32)
    band[away < radius] = (255, 240, 190)
    return band


def _plain(
    rng: np.random.Generator,
    rows: int,
    columns: int,
    far: Colour,
    near: Colour,
    grains: tuple[tuple[int, float], ...],
) -> np.ndarray:
    field = np.zeros((rows, columns), np.float32)
    for scale, strength in grains:
        field += strength * noise_patch(rng, rows, columns, scale)
    return _lerp(far, near, rows) + field[..., None]


def _grass(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    far, near = (
        pick(rng, (120, 165, 80), (95, 150, 70), (140, 160, 80)),
        pick(rng, (60, 125, 45), (75, 140, 50), (55, 105, 50)),
    )
    band = _plain(rng, rows, columns, far, near, ((2, 10), (3, 8)))
    blades = cv2.blur(noise_patch(rng, rows, columns, 0), (1, 5))
    return band + 34 * blades[..., None]


def _field(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    band = _plain(
        rng,
        rows,
        columns,
        tone(rng, (225, 195, 110)),
        pick(rng, (210, 165, 60), (225, 190, 80), (190, 150, 70)),
        ((0, 10), (2, 8)),
    )
    depth = np.linspace(0.25, 1.0, rows, dtype=np.float32)[:, None]
    across = (np.arange(columns, dtype=np.float32)[None] - rng.uniform(0, columns)) / (columns * depth)
    return band - (22 * (np.sin(across * rng.uniform(45, 75)) > 0.2))[..., None]


def _water(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    far, near = (
        pick(rng, (90, 150, 190), (70, 130, 160), (120, 170, 195)),
        pick(rng, (25, 80, 130), (30, 100, 120), (40, 90, 150)),
    )
    band = _plain(rng, rows, columns, far, near, ((3, 6),))
    ripple = (
        cv2.blur(noise_patch(rng, rows, columns, 0), (13, 1)) * 3
        + cv2.blur(noise_patch(rng, rows, columns, 1), (25, 1)) * 0.8
    )
    depth = np.linspace(0.5, 1.0, rows, dtype=np.float32)[:, None]
    return band + (ripple * depth * 18 + 70 * (ripple > 1.5))[..., None]


def _sand(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    far, near = (
        pick(rng, (235, 215, 165), (225, 195, 140)),
        pick(rng, (225, 195, 135), (205, 165, 105), (235, 210, 160)),
    )
    return _plain(rng, rows, columns, far, near, ((0, 9), (2, 9), (3, 9)))


def _snow(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    return _plain(
        rng,
        rows,
        columns,
        tone(rng, (222, 232, 245), 6),
        tone(rng, (240, 244, 250), 5),
        ((0, 4), (2, 5), (3, 11)),
    )


def _road(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    grey = rng.uniform(70, 125)
    band = _plain(rng, rows, columns, (grey + 25,) * 3, (grey, grey, grey + 4), ((0, 9), (3, 5)))
    row, thick = int(rows * rng.uniform(0.35, 0.6)), max(2, rows // 16)
    dash, paint = columns / rng.uniform(3, 6), pick(rng, (240, 240, 235), (240, 205, 80))
    lit = ((np.arange(columns) + rng.uniform(0, dash)) % dash) < dash * 0.6
    band[row : row + thick, lit] = paint
    kerb = max(1, rows // 18)
    band[:kerb] = rng.uniform(150, 190)
    return band


def _floor(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    wood = pick(rng, (170, 115, 65), (140, 90, 55), (200, 155, 105), (110, 75, 50))
    band = _plain(rng, rows, columns, dim(wood, 0.85), wood, ((3, 5),))
    band += 12 * cv2.blur(noise_patch(rng, rows, columns, 0), (15, 1))[..., None]
    edges = (np.linspace(0, 1, rng.integers(4, 7)) ** 1.5 * (rows - 1)).astype(int)
    band[edges[1:]] *= 0.62
    for upper, lower in pairwise(edges.tolist()):
        band[upper:lower, rng.integers(0, columns, 3)] *= 0.66
    return band


def _wall(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    paint = pick(
        rng,
        (225, 215, 195),
        (190, 205, 210),
        (205, 190, 215),
        (215, 200, 160),
        (170, 190, 165),
        (200, 130, 110),
    )
    band = _plain(rng, rows, columns, paint, dim(paint, 0.94), ((3, 5), (0, 3)))
    kind = rng.random()
    if kind < 0.35:
        step = int(rng.uniform(0.07, 0.14) * columns)
        band[:, (np.arange(columns) // step) % 2 == 0] *= 0.92
    elif kind < 0.6:
        height, width = max(5, rows // 12), max(10, columns // 9)
        band[np.arange(rows) % height == 0] *= 0.8
        for course in range(0, rows, height):
            shift = (course // height % 2) * width // 2
            band[course : course + height, (np.arange(columns) + shift) % width == 0] *= 0.8
    band[-max(2, rows // 24) :] = 240
    return band


def _mountain(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    rock = pick(rng, (120, 125, 150), (105, 110, 120), (130, 115, 110), (95, 115, 110))
    band = _plain(
        rng,
        rows,
        columns,
        dim(rock, 0.8),
        dim(rock, 1.2),
        ((1, 9), (2, 12)),
    )
    if rng.random() < 0.6:
        snow = np.arange(rows)[:, None] + noise_patch(
            rng, rows, columns, 2
        ) * rows * 0.12 < rows * rng.uniform(0.25, 0.45)
        band[snow] = (240, 243, 250)
    return band


def _forest(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    leaf = pick(rng, (45, 90, 50), (60, 110, 55), (35, 75, 55), (120, 95, 45))
    return _plain(rng, rows, columns, dim(leaf, 1.2), dim(leaf, 0.7), ((1, 20), (2, 12)))


GROUNDS = {
    "sky": _sky,
    "sunset": _sunset,
    "mountain": _mountain,
    "forest": _forest,
    "grass": _grass,
    "field": _field,
    "water": _water,
    "sand": _sand,
    "snow": _snow,
    "road": _road,
    "floor": _floor,
    "wall": _wall,
}


def paint_ground(
    image: np.ndarray,
    instances: np.ndarray,
    instance: int,
    name: str,
    rng: np.random.Generator,
    top: float,
    bottom: float,
) -> None:
    """Paint ground ``name`` from its upper edge (about row ``top``) down to row ``bottom`` as ``instance``."""
    rows, columns = instances.shape
    span = bottom - top
    if name == "mountain":
        edge = _ridge(rng, columns, bottom, span)
    elif name == "forest":
        edge = _crowns(rng, columns, bottom, span)
    elif name in ("grass", "field", "sand", "snow"):
        edge = _profile(rng, columns, top, 0.012 * rows, 3)
    else:
        edge = np.full(columns, top)
    first, last = max(int(edge.min()), 0), min(int(np.ceil(bottom)), rows)
    if last - first < 2:
        return
    band = GROUNDS[name](rng, last - first, columns)
    inside = (np.arange(first, last)[:, None] >= edge[None]).astype(np.uint8)
    np.maximum(np.minimum(band, 255, out=band), 0, out=band)
    cv2.copyTo(band.astype(np.uint8), inside, image[first:last])
    cv2.copyTo(np.full_like(inside, instance), inside, instances[first:last])
