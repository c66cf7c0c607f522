"""Drawn scenes: what stands where, on which ground, under which light, and the mask that belongs to it."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from demo.world import animals, objects
from demo.world.drawing import Pen, noise_patch, shade
from demo.world.grounds import GROUNDS, paint_ground

__all__ = ["GROUND_LABELS", "LABELS", "MINIMUM_SHARE", "THINGS", "Scene", "make_scene"]

_DRAWERS = {**animals.DRAWERS, **objects.DRAWERS}
THINGS: tuple[str, ...] = tuple(sorted(_DRAWERS))
GROUND_LABELS: tuple[str, ...] = tuple(GROUNDS)
LABELS: tuple[str, ...] = THINGS + GROUND_LABELS

MINIMUM_SHARE = 0.002
"""A label is visible when it covers at least this share of the picture."""


@dataclass(frozen=True)
class Setting:
    """A kind of place: its bands from far to near, and what is usually met there (thing -> weight)."""

    skies: tuple[str, ...]
    middles: tuple[tuple[str, ...], ...]
    ground: str
    things: dict[str, float]
    flying: dict[str, float]
    horizon: tuple[float, float]
    weight: float = 1.0


_OPEN = ("sky", "sky", "sky", "sunset")
_BACK = ((), (), ("mountain",), ("forest",))
SETTINGS: tuple[Setting, ...] = (
    Setting(_OPEN, _BACK, "grass", {"cow": 3, "sheep": 3, "horse": 2, "tree": 2.5, "flower": 2.2, "house": 1, "dog": 0.8, "person": 1}, {"bird": 1, "hot air balloon": 0.7}, (0.3, 0.55), 1.3),
    Setting(_OPEN, ((), ("forest",), ("forest",)), "grass", {"person": 2.2, "dog": 2, "bench": 2.8, "tree": 2.5, "bicycle": 1.5, "ball": 1.3, "flower": 2.6, "cat": 0.5}, {"kite": 3, "bird": 0.7}, (0.25, 0.5), 1.3),
    Setting(_OPEN, (("water",), ("water",), ("mountain", "water")), "sand", {"umbrella": 4, "person": 2.5, "ball": 1.6, "dog": 1.2, "lighthouse": 0.8, "boat": 0.8, "tree": 0.6, "chair": 0.8}, {"bird": 1.6, "kite": 2.6}, (0.3, 0.45)),
    Setting(_OPEN, ((), (), ("mountain",)), "water", {"boat": 5, "lighthouse": 1.3, "bird": 0.6}, {"bird": 2.5, "airplane": 0.6}, (0.35, 0.55)),
    Setting(("sky", "sky", "sunset"), ((), ("wall",), ("forest",), ()), "road", {"car": 3.2, "bus": 2, "bicycle": 1.6, "traffic light": 4.5, "person": 1.8, "house": 1.5, "tree": 1.2, "bench": 0.5, "dog": 0.4}, {"bird": 0.5, "airplane": 0.4}, (0.4, 0.6), 1.4),
    Setting(_OPEN, ((), ("mountain",), ("mountain",), ("forest",)), "snow", {"snowman": 3.4, "tree": 2.4, "house": 1.5, "person": 1.8, "dog": 0.9, "horse": 0.3}, {"bird": 0.6}, (0.3, 0.5)),
    Setting(_OPEN, _BACK, "field", {"horse": 1.4, "tree": 1.5, "house": 1.2, "train": 1.6, "cow": 0.8, "person": 0.7, "bicycle": 0.5}, {"hot air balloon": 2.2, "bird": 1.3, "airplane": 0.5}, (0.35, 0.55)),
    Setting(_OPEN, (("mountain",), (), ("forest",)), "grass", {"train": 4, "tree": 1.5, "house": 1, "cow": 0.6}, {"bird": 0.6, "hot air balloon": 0.4}, (0.35, 0.55), 0.6),
    Setting(("wall",), ((),), "floor", {"table": 3, "chair": 3, "cat": 2, "dog": 1, "person": 1, "ball": 0.7, "cake": 1.3}, {"clock": 2.5}, (0.5, 0.65), 1.8),
    Setting(("sky", "sunset", "sky"), ((), ("mountain",)), "sand", {"cactus": 4.5, "tent": 1.2, "horse": 0.7, "person": 0.7, "car": 0.5}, {"bird": 0.7, "airplane": 0.4}, (0.3, 0.5)),
    Setting(_OPEN, (("forest",), ("mountain",), ("mountain", "forest"), ()), "grass", {"tent": 3.2, "person": 1.6, "tree": 2.2, "dog": 0.9, "chair": 0.7, "bicycle": 0.5}, {"bird": 0.7}, (0.3, 0.5), 0.8),
    Setting(("sky", "sunset"), ((), ("forest",)), "road", {"airplane": 3.2, "bus": 1, "car": 1, "person": 0.6}, {"airplane": 1.2, "bird": 0.5}, (0.4, 0.55), 0.5),
)  # fmt: skip

_HEIGHTS = {
    "person": 0.62, "dog": 0.34, "cat": 0.3, "cow": 0.5, "horse": 0.58, "sheep": 0.38, "bird": 0.22, "tree": 0.95, "flower": 0.42,
    "cactus": 0.65, "snowman": 0.55, "boat": 0.55, "car": 0.36, "bus": 0.52, "train": 0.42, "bicycle": 0.4, "airplane": 0.3,
    "hot air balloon": 0.6, "kite": 0.42, "traffic light": 0.75, "bench": 0.32, "house": 0.75, "umbrella": 0.55, "ball": 0.2,
    "lighthouse": 0.95, "tent": 0.46, "table": 0.38, "chair": 0.46, "clock": 0.24, "cake": 0.28,
}  # fmt: skip
"""Height at the picture's lower edge, in picture heights: nearness multiplies it."""

_STILL = {"house", "lighthouse", "traffic light", "table", "train", "bench", "clock", "cake"}
_CROWDS = {"sheep": 0.45, "cow": 0.35, "bird": 0.4, "boat": 0.3, "flower": 0.5, "tree": 0.4, "car": 0.3, "person": 0.3, "cactus": 0.3, "hot air balloon": 0.3, "chair": 0.3, "dog": 0.15, "horse": 0.25}  # fmt: skip
"""Chance that one more of the kind stands beside the last."""


@dataclass(frozen=True)
class Scene:
    """One picture with its truth.

    image: (H, W, 3) uint8 RGB; mask: (H, W) uint8, indices into :data:`LABELS`; areas: pixels of every label
    that covers at least :data:`MINIMUM_SHARE`, largest first; counts: visible instances of these labels.
    """

    image: np.ndarray
    mask: np.ndarray
    areas: dict[str, int]
    counts: dict[str, int]


def _draw_kind(rng: np.random.Generator, weights: dict[str, float], number: int) -> list[str]:
    names = list(weights)
    chances = np.array([weights[name] for name in names], dtype=np.float64)
    size = min(number, len(names))
    return [names[i] for i in rng.choice(len(names), size, replace=False, p=chances / chances.sum())]


def _crowd(rng: np.random.Generator, kind: str) -> int:
    number = 1
    while number < 4 and rng.random() < _CROWDS.get(kind, 0.06):
        number += 1
    return number


def _plan(
    rng: np.random.Generator, setting: Setting, rows: int, columns: int, horizon: float
) -> list[tuple[str, float, float, float]]:
    """(kind, x, y of the foot, height in pixels) of every thing, far ones first."""
    planned: list[tuple[str, float, float, float]] = []
    near = rows * rng.uniform(0.9, 1.02)
    zoom = float(np.exp(rng.uniform(np.log(0.75), np.log(1.35))))
    for kind in _draw_kind(
        rng, setting.things, int(rng.choice((1, 2, 3, 4, 5), p=(0.12, 0.28, 0.3, 0.2, 0.1)))
    ):
        depth, x = rng.uniform(0.0, 1.0), rng.uniform(0.06, 0.94)
        for _ in range(_crowd(rng, kind)):
            depth = float(np.clip(depth + rng.uniform(-0.2, 0.2), 0.0, 1.0))
            height = _HEIGHTS[kind] * rows * zoom * (0.36 + 0.64 * depth) * rng.uniform(0.85, 1.15)
            foot = horizon + 0.03 * rows + (near - horizon - 0.03 * rows) * depth
            planned.append((kind, x * columns, foot, height))
            x = (x + rng.uniform(0.15, 0.4)) % 1.0
    flying = int(rng.choice((0, 1, 2), p=(0.45, 0.42, 0.13)))
    for kind in _draw_kind(rng, setting.flying, flying) if flying else []:
        for _ in range(_crowd(rng, kind)):
            height = _HEIGHTS[kind] * rows * zoom * rng.uniform(0.4, 1.0)
            foot = rng.uniform(min(height + 2, horizon * 0.8), max(horizon * 0.95, height * 0.8 + 3))
            planned.append(
                (kind, rng.uniform(0.08, 0.92) * columns, foot, height * (1.3 if kind == "clock" else 1.0))
            )
    return sorted(planned, key=lambda item: item[2])


def _place_cake(planned: list[tuple[str, float, float, float]]) -> list[tuple[str, float, float, float]]:
    """A cake stands on the table if there is one."""
    tables = [item for item in planned if item[0] == "table"]
    moved = [
        (kind, tables[-1][1] + 0.2 * height, tables[-1][2] - 0.96 * tables[-1][3], height)
        if kind == "cake" and tables
        else (kind, x, foot, height)
        for kind, x, foot, height in planned
    ]
    return [item for item in moved if item[0] != "cake"] + [item for item in moved if item[0] == "cake"]


def _shadow(image: np.ndarray, x: float, foot: float, height: float) -> None:
    """A soft dark spot on the ground below a thing; it belongs to the ground."""
    half, thin = int(height * 0.45) + 2, int(height * 0.06) + 1
    x0, x1 = max(int(x) - half, 0), min(int(x) + half, image.shape[1])
    y0, y1 = max(int(foot) - thin, 0), min(int(foot) + thin, image.shape[0])
    if x0 >= x1 or y0 >= y1:
        return
    across = (np.arange(x0, x1, dtype=np.float32)[None] - x) / half
    down = (np.arange(y0, y1, dtype=np.float32)[:, None] - foot) / thin
    dark = 1.0 - 0.4 * np.clip(1.0 - across**2 - down**2, 0, 1)
    image[y0:y1, x0:x1] = (image[y0:y1, x0:x1] * dark[..., None]).astype(np.uint8)


def _light(image: np.ndarray, rng: np.random.Generator, sunset: bool) -> np.ndarray:
    """The whole picture's light: exposure, colour cast, a gradient, and sensor grain."""
    rows, columns = image.shape[:2]
    cast = (
        np.array([1.06, 0.96, 0.88] if sunset else [1.0, 1.0, 1.0])
        * rng.uniform(0.94, 1.06, 3)
        * np.exp(rng.normal(0, 0.13))
    )
    slope = rng.uniform(-0.12, 0.12)
    ramp = 1.0 + np.linspace(-slope, slope, columns, dtype=np.float32)
    grain = noise_patch(rng, rows, columns, 0) * rng.uniform(1.0, 7.0)
    lit = image * (ramp[None, :, None] * cast.astype(np.float32)) + grain[..., None]
    return np.maximum(np.minimum(lit, 255, out=lit), 0, out=lit).astype(np.uint8)


def make_scene(seed: int | tuple[int, ...], size: tuple[int, int] | None = None) -> Scene:
    """The scene of ``seed``; ``size`` is (rows, columns), by default drawn from 160 to 224 pixels a side.

    The same seed gives the same bytes on every machine with the same OpenCV and NumPy.
    """
    rng = np.random.default_rng(seed)
    drawn = (int(rng.integers(160, 225)), int(rng.integers(160, 225)))
    rows, columns = size or drawn
    weights = np.array([setting.weight for setting in SETTINGS])
    setting = SETTINGS[int(rng.choice(len(SETTINGS), p=weights / weights.sum()))]
    image = np.zeros((rows, columns, 3), np.uint8)
    instances = np.zeros((rows, columns), np.uint8)
    labels: list[str] = []

    sky = setting.skies[int(rng.integers(len(setting.skies)))]
    horizon = rows * rng.uniform(*setting.horizon)
    middles = setting.middles[int(rng.integers(len(setting.middles)))]
    labels.append(sky)
    paint_ground(image, instances, 0, sky, rng, 0, horizon if sky == "wall" else horizon + 0.06 * rows)
    for name in middles:
        labels.append(name)
        if name == "water":
            top, bottom = horizon - rows * rng.uniform(0.1, 0.2), horizon + 0.05 * rows
        elif name == "wall":
            top, bottom = horizon - rows * rng.uniform(0.15, 0.3), horizon + 1
        else:
            base = horizon - (rows * 0.15 if "water" in middles else 0) + 0.04 * rows
            top, bottom = base - rows * rng.uniform(0.12, 0.3), base
        paint_ground(image, instances, len(labels) - 1, name, rng, top, bottom)
    labels.append(setting.ground)
    paint_ground(image, instances, len(labels) - 1, setting.ground, rng, horizon, rows)

    side = rng.choice((-1.0, 1.0)) * rng.uniform(0.05, 0.22)
    for kind, x, foot, height in _place_cake(_plan(rng, setting, rows, columns, horizon)):
        if len(labels) > 250:
            break
        if foot > horizon and kind not in ("cake", "clock"):
            _shadow(image, x, foot, height)
        labels.append(kind)
        turn = rng.uniform(-0.02, 0.02) if kind in _STILL else rng.normal(0, 0.07)
        pen = Pen(
            image, instances, len(labels) - 1, (x, foot), max(height, 14.0),
            turn=turn, mirror=bool(rng.random() < 0.5), stretch=rng.uniform(0.85, 1.18),
        )  # fmt: skip
        _DRAWERS[kind](pen, rng)
        grain = int(rng.integers(0, 3))
        shade(pen, rng, side, rng.uniform(0.02, 0.09 if grain == 0 else 0.17), grain)

    image = _light(image, rng, sky == "sunset")
    if rng.random() < 0.2:
        image = cv2.GaussianBlur(image, (3, 3), 0)
    return _with_truth(image, instances, labels)


def _with_truth(image: np.ndarray, instances: np.ndarray, labels: list[str]) -> Scene:
    pixels = np.bincount(instances.ravel(), minlength=len(labels))
    least = MINIMUM_SHARE * instances.size
    areas: dict[str, int] = {}
    counts: dict[str, int] = {}
    for name, area in zip(labels, pixels.tolist(), strict=True):
        areas[name] = areas.get(name, 0) + area
        counts[name] = counts.get(name, 0) + int(area >= least)
    visible = sorted((name for name in areas if areas[name] >= least), key=lambda name: (-areas[name], name))
    lookup = np.array([LABELS.index(name) for name in labels], np.uint8)
    return Scene(
        image, lookup[instances], {n: areas[n] for n in visible}, {n: max(counts[n], 1) for n in visible}
    )
