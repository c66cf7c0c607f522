"""How people, animals and plants are drawn, each into a pen's unit coordinates (foot at 0, height about 1)."""

from __future__ import annotations

import numpy as np

from demo.world.colours import Colour, dim, pick
from demo.world.drawing import Pen

__all__ = ["DRAWERS"]


def _legs(
    pen: Pen, rng: np.random.Generator, xs: tuple[float, ...], top: float, width: float, colour: Colour
) -> None:
    stride = rng.uniform(-0.1, 0.1)
    for number, x in enumerate(xs):
        swing = stride if number % 2 else -stride
        shaded = dim(colour, 0.75) if number % 2 else colour
        pen.stroke((x, top), (x + swing, 0.0), width, shaded)


def person(pen: Pen, rng: np.random.Generator) -> None:
    """A standing or walking person, arms in any pose, now and then in a dress or a hat."""
    skin = pick(rng, (236, 190, 160), (198, 140, 100), (120, 80, 55))
    shirt = pick(
        rng, (200, 40, 40), (40, 80, 190), (240, 220, 70), (40, 150, 80), (240, 240, 240), (120, 60, 140)
    )
    trousers = pick(rng, (40, 50, 90), (60, 55, 50), (150, 130, 100), (30, 30, 35))
    hair = pick(rng, (40, 28, 20), (120, 80, 40), (220, 190, 110), (90, 90, 90))
    for side in (-1, 1):
        lift, out = rng.uniform(-0.22, 0.2), rng.uniform(0.1, 0.24)
        hand = (side * (0.08 + out), 0.55 + lift)
        pen.stroke((side * 0.1, 0.76), hand, 0.065, dim(shirt, 0.9))
        pen.ellipse(*hand, 0.035, 0.035, skin)
    if rng.random() < 0.3:
        pen.stroke((-0.05, 0.3), (-0.06, 0.0), 0.06, skin)
        pen.stroke((0.05, 0.3), (0.06, 0.0), 0.06, skin)
        pen.polygon([(-0.09, 0.6), (0.09, 0.6), (0.19, 0.22), (-0.19, 0.22)], shirt)
    else:
        gap = rng.uniform(0.03, 0.16)
        pen.stroke((-0.05, 0.48), (-gap, 0.0), 0.1, trousers)
        pen.stroke((0.05, 0.48), (gap, 0.0), 0.1, dim(trousers, 0.8))
    pen.polygon([(-0.12, 0.8), (0.12, 0.8), (0.1, 0.45), (-0.1, 0.45)], shirt)
    pen.stroke((0, 0.8), (0, 0.87), 0.06, skin)
    pen.ellipse(0, 0.92, 0.075, 0.085, hair)
    pen.ellipse(rng.uniform(-0.02, 0.02), 0.9, 0.062, 0.07, skin)
    if rng.random() < 0.25:
        hat = pick(rng, (220, 190, 120), (160, 30, 30), (40, 40, 60))
        pen.box(-0.13, 0.95, 0.13, 0.975, hat)
        pen.box(-0.07, 0.97, 0.07, 1.04, hat)


def dog(pen: Pen, rng: np.random.Generator) -> None:
    """A dog from the side, standing, walking or sitting; hanging ears, raised tail."""
    coat = pick(rng, (150, 95, 50), (205, 165, 105), (60, 50, 45), (225, 215, 200), (120, 110, 100))
    dark = dim(coat, 0.62)
    if rng.random() < 0.3:
        pen.stroke((-0.3, 0.1), (-0.55, 0.32), 0.08, coat)
        pen.ellipse(-0.12, 0.26, 0.3, 0.24, coat, 0.6)
        pen.stroke((0.14, 0.5), (0.16, 0.0), 0.11, coat)
        pen.stroke((0.04, 0.45), (0.05, 0.0), 0.1, dark)
        head = (0.2, 0.78)
    else:
        pen.stroke((-0.45, 0.58), (-0.72, 0.8 + rng.uniform(-0.2, 0.12)), 0.08, coat)
        _legs(pen, rng, (-0.38, -0.28, 0.26, 0.36), 0.45, 0.1, coat)
        pen.ellipse(-0.02, 0.5, 0.5, 0.19, coat)
        pen.stroke((0.35, 0.55), (0.5, 0.75), 0.2, coat)
        head = (0.54, 0.78)
    x, y = head
    pen.ellipse(x, y, 0.19, 0.16, coat)
    pen.ellipse(x + 0.2, y - 0.05, 0.14, 0.08, dim(coat, 1.1))
    pen.ellipse(x + 0.32, y - 0.03, 0.04, 0.04, (20, 18, 18))
    pen.ellipse(x - 0.1, y - 0.03, 0.07, 0.16, dark, 0.2)
    pen.ellipse(x + 0.07, y + 0.05, 0.025, 0.03, (15, 12, 12))


def cat(pen: Pen, rng: np.random.Generator) -> None:
    """A cat that sits facing us, or walks with its tail up; pointed ears, stripes on some."""
    coat = pick(rng, (225, 140, 60), (90, 90, 95), (35, 33, 36), (235, 230, 222), (165, 135, 105))
    dark = dim(coat, 0.65)
    if rng.random() < 0.55:
        pen.stroke((0.2, 0.06), (0.48, 0.12), 0.09, coat)
        pen.stroke((0.48, 0.12), (0.55, 0.4), 0.08, dark)
        pen.ellipse(0, 0.28, 0.3, 0.3, coat)
        pen.ellipse(0, 0.42, 0.2, 0.24, coat)
        pen.ellipse(0, 0.3, 0.12, 0.2, dim(coat, 1.25))
        pen.ellipse(-0.1, 0.05, 0.09, 0.06, dim(coat, 1.15))
        pen.ellipse(0.1, 0.05, 0.09, 0.06, dim(coat, 1.15))
        x, y = 0.0, 0.74
    else:
        pen.stroke((-0.5, 0.45), (-0.62, 0.8), 0.08, coat)
        pen.stroke((-0.62, 0.8), (-0.55, 1.0), 0.07, dark)
        _legs(pen, rng, (-0.42, -0.32, 0.24, 0.34), 0.36, 0.09, coat)
        pen.ellipse(-0.04, 0.42, 0.48, 0.17, coat)
        for stripe in (-0.3, -0.14, 0.02):
            pen.stroke((stripe, 0.57), (stripe + 0.03, 0.4), 0.05, dark)
        x, y = 0.46, 0.64
    for side in (-1, 1):
        pen.polygon(
            [(x + side * 0.21, y + 0.29), (x + side * 0.04, y + 0.15), (x + side * 0.2, y + 0.05)], coat
        )
        pen.polygon(
            [(x + side * 0.18, y + 0.23), (x + side * 0.08, y + 0.15), (x + side * 0.17, y + 0.09)],
            (235, 160, 160),
        )
    pen.ellipse(x, y, 0.23, 0.18, coat)
    for side in (-1, 1):
        pen.ellipse(x + side * 0.09, y + 0.03, 0.04, 0.045, pick(rng, (150, 200, 70), (230, 200, 60)))
        pen.ellipse(x + side * 0.09, y + 0.03, 0.014, 0.04, (10, 10, 10))
    pen.ellipse(x, y - 0.05, 0.03, 0.02, (220, 120, 130))


def cow(pen: Pen, rng: np.random.Generator) -> None:
    """A cow from the side: heavy body with patches, horns, udder, head up or grazing."""
    coat = pick(rng, (240, 238, 232), (240, 238, 232), (150, 85, 50), (70, 50, 40))
    patch = pick(rng, (30, 28, 28), (120, 70, 40)) if coat[0] > 190 else dim(coat, 1.7)
    pen.stroke((-0.66, 0.78), (-0.76, 0.3), 0.04, dim(coat, 0.8))
    _legs(pen, rng, (-0.52, -0.4, 0.36, 0.48), 0.42, 0.11, coat)
    pen.ellipse(-0.25, 0.34, 0.12, 0.08, (235, 170, 165))
    pen.polygon([(-0.68, 0.86), (0.55, 0.88), (0.62, 0.55), (0.5, 0.36), (-0.6, 0.36), (-0.7, 0.6)], coat)
    for _ in range(rng.integers(2, 5)):
        pen.ellipse(
            rng.uniform(-0.5, 0.35),
            rng.uniform(0.5, 0.75),
            rng.uniform(0.08, 0.2),
            rng.uniform(0.07, 0.13),
            patch,
        )
    y = 0.9 if rng.random() < 0.65 else 0.3
    pen.stroke((0.5, 0.7), (0.72, y), 0.24, coat)
    pen.ellipse(0.8, y, 0.2, 0.14, coat, -0.5)
    pen.ellipse(0.92, y - 0.1, 0.11, 0.09, (225, 165, 155))
    pen.ellipse(0.62, y + 0.08, 0.1, 0.045, patch, -0.3)
    pen.stroke((0.68, y + 0.1), (0.64, y + 0.25), 0.045, (225, 215, 190))
    pen.stroke((0.8, y + 0.12), (0.86, y + 0.26), 0.045, (225, 215, 190))
    pen.ellipse(0.8, y + 0.04, 0.022, 0.025, (10, 10, 10))


def horse(pen: Pen, rng: np.random.Generator) -> None:
    """A horse: long legs, arched neck with mane, flowing tail."""
    coat = pick(rng, (130, 75, 40), (80, 50, 32), (190, 140, 85), (225, 220, 212), (50, 42, 40))
    mane = pick(rng, (30, 22, 18), (90, 60, 35), (230, 215, 180))
    pen.polygon([(-0.48, 0.68), (-0.62, 0.62), (-0.74, 0.22), (-0.6, 0.26), (-0.52, 0.5)], mane)
    _legs(pen, rng, (-0.42, -0.32, 0.26, 0.36), 0.5, 0.085, coat)
    pen.ellipse(-0.03, 0.56, 0.48, 0.17, coat)
    pen.polygon([(0.2, 0.66), (0.44, 0.98), (0.58, 0.9), (0.44, 0.5)], coat)
    pen.polygon([(0.2, 0.7), (0.3, 0.92), (0.46, 1.04), (0.48, 0.96), (0.36, 0.8)], mane)
    pen.polygon([(0.44, 1.0), (0.56, 1.0), (0.8, 0.8), (0.74, 0.72), (0.5, 0.84)], coat)
    pen.polygon([(0.46, 0.98), (0.48, 1.1), (0.53, 0.99)], coat)
    pen.ellipse(0.57, 0.92, 0.022, 0.022, (10, 8, 8))


def sheep(pen: Pen, rng: np.random.Generator) -> None:
    """A woolly sheep: a cloud of curls on thin dark legs."""
    wool = pick(rng, (238, 233, 220), (225, 218, 200), (205, 195, 180))
    face = pick(rng, (40, 36, 36), (60, 52, 48), (200, 180, 160))
    _legs(pen, rng, (-0.34, -0.22, 0.2, 0.32), 0.32, 0.07, face)
    for angle in np.linspace(0, 2 * np.pi, 11, endpoint=False) + rng.uniform(0, 0.5):
        pen.ellipse(
            0.42 * np.cos(angle), 0.56 + 0.22 * np.sin(angle), 0.17, 0.16, dim(wool, rng.uniform(0.88, 1.04))
        )
    pen.ellipse(0, 0.56, 0.44, 0.25, wool)
    y = rng.uniform(0.45, 0.78)
    pen.ellipse(0.62, y, 0.17, 0.12, face, -0.7)
    pen.ellipse(0.52, y + 0.07, 0.11, 0.04, face, 0.4)
    pen.ellipse(0.55, y + 0.15, 0.12, 0.09, wool)
    pen.ellipse(0.64, y + 0.03, 0.022, 0.022, (240, 240, 230))


def bird(pen: Pen, rng: np.random.Generator) -> None:
    """A gull-like bird: in flight with raised or lowered wings, or standing."""
    body = pick(rng, (245, 245, 245), (225, 228, 232), (70, 70, 80), (110, 85, 65))
    wing = pick(rng, (150, 155, 165), (60, 60, 66), (200, 205, 210))
    beak = pick(rng, (240, 170, 40), (230, 110, 40))
    if rng.random() < 0.7:
        lift = rng.uniform(-0.25, 0.55)
        pen.polygon(
            [(-0.1, 0.45), (0.14, 0.45), (-0.35, 0.45 + lift), (-0.95, 0.45 + 0.6 * lift + 0.1)],
            dim(wing, 0.8),
        )
        pen.ellipse(0, 0.4, 0.36, 0.13, body, 0.1)
        pen.polygon([(-0.3, 0.42), (-0.58, 0.48), (-0.56, 0.3)], dim(body, 0.85))
        pen.ellipse(0.36, 0.48, 0.12, 0.11, body)
        pen.polygon([(0.46, 0.5), (0.64, 0.44), (0.46, 0.42)], beak)
        pen.polygon(
            [
                (-0.12, 0.44),
                (0.18, 0.46),
                (0.62, 0.5 + lift),
                (0.98, 0.42 + 0.6 * lift),
                (0.5, 0.42 + 0.6 * lift),
            ],
            wing,
        )
    else:
        pen.stroke((-0.04, 0.3), (-0.04, 0), 0.05, beak)
        pen.stroke((0.08, 0.3), (0.08, 0), 0.05, beak)
        pen.ellipse(0, 0.46, 0.4, 0.22, body, 0.35)
        pen.polygon([(0.1, 0.58), (-0.56, 0.22), (-0.2, 0.3)], wing)
        pen.ellipse(0.3, 0.76, 0.16, 0.15, body)
        pen.polygon([(0.42, 0.8), (0.66, 0.74), (0.42, 0.7)], beak)
    pen.ellipse(0.36, 0.5, 0.02, 0.02, (10, 10, 10))


def tree(pen: Pen, rng: np.random.Generator) -> None:
    """A broad-leaved tree, a fir or a palm."""
    bark = pick(rng, (105, 75, 50), (85, 65, 50), (130, 100, 75))
    leaf = pick(rng, (50, 120, 45), (80, 145, 50), (40, 95, 60), (200, 130, 40), (170, 70, 40))
    kind = rng.random()
    if kind < 0.6:
        pen.polygon([(-0.06, 0), (0.06, 0), (0.04, 0.5), (-0.04, 0.5)], bark)
        for _ in range(rng.integers(6, 10)):
            x, y = rng.uniform(-0.22, 0.22), rng.uniform(0.5, 0.84)
            pen.ellipse(
                x, y, rng.uniform(0.13, 0.2), rng.uniform(0.11, 0.17), dim(leaf, rng.uniform(0.75, 1.2))
            )
    elif kind < 0.9:
        green = pick(rng, (30, 85, 50), (45, 100, 60), (35, 75, 65))
        pen.box(-0.035, 0, 0.035, 0.2, bark)
        for base, half in ((0.12, 0.3), (0.34, 0.24), (0.56, 0.18), (0.76, 0.1)):
            pen.polygon([(-half, base), (half, base), (0, base + 0.34)], dim(green, 0.8 + base / 2))
    else:
        lean = rng.uniform(-0.12, 0.12)
        pen.polygon([(-0.04, 0), (0.04, 0), (lean + 0.025, 0.78), (lean - 0.025, 0.78)], bark)
        for angle in np.linspace(-0.5, np.pi + 0.5, 7) + rng.uniform(-0.1, 0.1):
            tip = (lean + 0.36 * np.cos(angle), 0.78 + 0.24 * np.sin(angle) - 0.06)
            bend = (lean + 0.2 * np.cos(angle), 0.84 + 0.2 * np.sin(angle))
            pen.polygon(
                [(lean, 0.78), bend, tip, (bend[0], bend[1] - 0.07)], dim(leaf, rng.uniform(0.8, 1.15))
            )


def flower(pen: Pen, rng: np.random.Generator) -> None:
    """A flower with petals round a yellow heart, on a stem with leaves."""
    petal = pick(
        rng, (230, 60, 70), (250, 210, 50), (240, 240, 245), (190, 80, 200), (250, 140, 180), (250, 130, 40)
    )
    stem = pick(rng, (60, 140, 60), (45, 115, 50))
    lean = rng.uniform(-0.1, 0.1)
    pen.stroke((0, 0), (lean, 0.7), 0.06, stem)
    for side in (-1, 1):
        pen.ellipse(side * 0.14, 0.28, 0.15, 0.055, stem, side * 0.6)
    count, size = rng.integers(5, 9), rng.uniform(0.13, 0.18)
    for angle in np.linspace(0, 2 * np.pi, count, endpoint=False) + rng.uniform(0, 1):
        pen.ellipse(lean + 0.18 * np.cos(angle), 0.75 + 0.18 * np.sin(angle), size, 0.09, petal, angle)
    pen.ellipse(lean, 0.75, 0.1, 0.1, pick(rng, (250, 200, 60), (120, 80, 40)))


def cactus(pen: Pen, rng: np.random.Generator) -> None:
    """A saguaro: a ribbed column with arms that bend up."""
    green = pick(rng, (60, 125, 70), (80, 140, 80), (95, 130, 70))
    for side in (-1, 1):
        if rng.random() < 0.88:
            y, out, up = rng.uniform(0.3, 0.55), rng.uniform(0.2, 0.3), rng.uniform(0.15, 0.35)
            pen.stroke((0, y), (side * out, y), 0.12, green)
            pen.stroke((side * out, y - 0.06), (side * out, y + up), 0.12, green)
            pen.ellipse(side * out, y + up, 0.06, 0.06, green)
    pen.box(-0.1, 0, 0.1, 0.9, green)
    pen.ellipse(0, 0.9, 0.1, 0.09, green)
    for x in (-0.05, 0.0, 0.05):
        pen.stroke((x, 0.02), (x, 0.92), 0.016, dim(green, 0.65))


def snowman(pen: Pen, rng: np.random.Generator) -> None:
    """Three balls of snow, a carrot nose, a hat and a scarf."""
    snow = pick(rng, (246, 248, 252), (232, 238, 246))
    for side in (-1, 1):
        pen.stroke((side * 0.15, 0.5), (side * 0.42, 0.6 + rng.uniform(-0.1, 0.15)), 0.03, (90, 65, 45))
    pen.ellipse(0, 0.22, 0.26, 0.23, dim(snow, 0.95))
    pen.ellipse(0, 0.53, 0.19, 0.17, snow)
    pen.ellipse(0, 0.76, 0.13, 0.13, snow)
    pen.box(-0.15, 0.63, 0.15, 0.69, pick(rng, (200, 40, 40), (40, 90, 180), (40, 140, 70)))
    hat = pick(rng, (30, 30, 36), (110, 40, 40))
    pen.box(-0.17, 0.85, 0.17, 0.88, hat)
    pen.box(-0.1, 0.87, 0.1, 1.02, hat)
    pen.polygon([(0, 0.78), (0.16, 0.745), (0, 0.735)], (240, 130, 40))
    for x, y in ((-0.05, 0.8), (0.05, 0.8), (0, 0.58), (0, 0.5)):
        pen.ellipse(x, y, 0.02, 0.02, (20, 20, 22))


DRAWERS = {
    "person": person,
    "dog": dog,
    "cat": cat,
    "cow": cow,
    "horse": horse,
    "sheep": sheep,
    "bird": bird,
    "tree": tree,
    "flower": flower,
    "cactus": cactus,
    "snowman": snowman,
}
