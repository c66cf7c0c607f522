"""How vehicles, buildings and household things are drawn, in a pen's unit coordinates."""

from __future__ import annotations

import numpy as np

from demo.world.colours import Colour, dim, pick
from demo.world.drawing import Pen

__all__ = ["DRAWERS"]

_PAINTS: tuple[Colour, ...] = (
    (200, 40, 40), (40, 80, 180), (235, 200, 50), (50, 140, 80), (235, 235, 238), (50, 50, 56), (160, 165, 170), (230, 120, 40),
)  # fmt: skip


def _paint(rng: np.random.Generator) -> Colour:
    return pick(rng, *_PAINTS)


def _wheel(pen: Pen, x: float, radius: float) -> None:
    pen.ellipse(x, radius, radius, radius, (28, 28, 30))
    pen.ellipse(x, radius, radius * 0.5, radius * 0.5, (170, 172, 176))


def boat(pen: Pen, rng: np.random.Generator) -> None:
    """A sailing boat with one or two sails, or a motor boat with a cabin."""
    hull = _paint(rng)
    if rng.random() < 0.65:
        sail = pick(rng, (250, 250, 245), (250, 250, 245), (220, 80, 60), (250, 210, 90))
        pen.stroke((0, 0.15), (0, 1.0), 0.025, (110, 80, 55))
        pen.polygon([(0.02, 0.98), (0.02, 0.24), (0.4, 0.24)], sail)
        if rng.random() < 0.7:
            pen.polygon([(-0.02, 0.9), (-0.02, 0.24), (-0.3, 0.24)], dim(sail, 0.88))
        pen.polygon([(-0.45, 0.2), (0.5, 0.2), (0.34, 0.0), (-0.32, 0.0)], hull)
        pen.polygon([(-0.45, 0.2), (0.5, 0.2), (0.47, 0.15), (-0.42, 0.15)], dim(hull, 1.35))
    else:
        pen.box(-0.45, 0.4, 0.2, 0.78, (240, 240, 240))
        for x in (-0.38, -0.16, 0.04):
            pen.box(x, 0.52, x + 0.13, 0.68, (80, 120, 150))
        pen.box(-0.3, 0.78, -0.12, 1.0, dim(hull, 0.8))
        pen.polygon([(-0.8, 0.45), (0.95, 0.5), (0.65, 0.0), (-0.68, 0.0)], hull)
        pen.polygon([(-0.79, 0.42), (0.93, 0.47), (0.88, 0.38), (-0.77, 0.34)], (245, 245, 245))


def car(pen: Pen, rng: np.random.Generator) -> None:
    """A saloon, hatchback or van-like car from the side."""
    body, back = _paint(rng), rng.uniform(-0.85, -0.5)
    pen.polygon([(back, 0.5), (back + 0.2, 0.95), (0.35, 0.95), (0.7, 0.5)], body)
    glass = pick(rng, (120, 160, 185), (60, 80, 95), (170, 200, 215))
    pen.polygon([(back + 0.14, 0.55), (back + 0.26, 0.87), (-0.12, 0.87), (-0.12, 0.55)], glass)
    pen.polygon([(-0.04, 0.55), (-0.04, 0.87), (0.31, 0.87), (0.56, 0.55)], glass)
    pen.polygon([(-1.05, 0.18), (-1.08, 0.5), (-0.95, 0.58), (0.7, 0.56), (1.08, 0.46), (1.1, 0.18)], body)
    pen.box(-1.1, 0.18, 1.12, 0.25, dim(body, 0.55))
    pen.ellipse(1.04, 0.4, 0.06, 0.06, (255, 245, 190))
    pen.ellipse(-1.03, 0.42, 0.04, 0.06, (200, 30, 30))
    _wheel(pen, -0.62, 0.22)
    _wheel(pen, 0.64, 0.22)


def bus(pen: Pen, rng: np.random.Generator) -> None:
    """A long bus with a row of windows, sometimes with two decks."""
    body, decks = _paint(rng), 1 + int(rng.random() < 0.3)
    half = 1.15 if decks == 1 else 0.8
    pen.box(-half, 0.12, half, 1.0, body)
    rows = ((0.5, 0.88),) if decks == 1 else ((0.36, 0.56), (0.7, 0.92))
    glass = pick(rng, (70, 95, 115), (140, 175, 195))
    for low, high in rows:
        for x in np.arange(-half + 0.08, half - 0.2, 0.32):
            pen.box(x, low, x + 0.25, high, glass)
    pen.box(half - 0.3, 0.16, half - 0.08, rows[0][1], dim(glass, 1.2))
    pen.box(-half, 0.2, half, 0.26, dim(body, 0.6))
    _wheel(pen, -half + 0.4, 0.15)
    _wheel(pen, half - 0.5, 0.15)


def train(pen: Pen, rng: np.random.Generator) -> None:
    """A locomotive with a sloping nose and one or two wagons on a dark rail."""
    body, stripe = _paint(rng), _paint(rng)
    wagons = rng.integers(1, 3)
    left = 0.4 - 1.5 * wagons
    pen.box(left - 0.1, -0.02, 2.0, 0.05, (70, 65, 62))
    for number in range(wagons):
        start = left + 1.5 * number
        pen.box(start, 0.15, start + 1.42, 0.92, dim(body, 0.92))
        pen.box(start, 0.36, start + 1.42, 0.44, stripe)
        for x in (0.12, 0.44, 0.76, 1.08):
            pen.box(start + x, 0.54, start + x + 0.22, 0.8, (60, 80, 100))
        for x in (0.25, 1.15):
            pen.ellipse(start + x, 0.1, 0.11, 0.11, (40, 38, 38))
        pen.box(start + 1.42, 0.2, start + 1.5, 0.3, (50, 50, 50))
    pen.polygon([(0.4, 0.15), (0.4, 0.95), (1.3, 0.95), (1.7, 0.5), (1.85, 0.15)], body)
    pen.polygon([(0.4, 0.36), (0.4, 0.44), (1.73, 0.44), (1.77, 0.36)], stripe)
    pen.polygon([(1.05, 0.56), (1.05, 0.85), (1.28, 0.85), (1.52, 0.56)], (50, 70, 90))
    pen.ellipse(1.72, 0.26, 0.06, 0.05, (255, 240, 170))
    for x in (0.6, 0.95, 1.5):
        pen.ellipse(x, 0.1, 0.11, 0.11, (40, 38, 38))


def bicycle(pen: Pen, rng: np.random.Generator) -> None:
    """A bicycle: two open wheels, a frame, saddle and handlebar."""
    frame = _paint(rng)
    for x in (-0.5, 0.5):
        pen.ring(x, 0.32, 0.29, 0.055, (35, 35, 38))
        for angle in np.linspace(0, np.pi, 4, endpoint=False):
            dx, dy = 0.28 * np.cos(angle), 0.28 * np.sin(angle)
            pen.stroke((x - dx, 0.32 - dy), (x + dx, 0.32 + dy), 0.012, (140, 140, 145))
    joints = {
        "rear": (-0.5, 0.32),
        "pedal": (-0.05, 0.3),
        "seat": (-0.18, 0.78),
        "head": (0.34, 0.8),
        "front": (0.5, 0.32),
    }
    for one, other in (
        ("rear", "pedal"),
        ("rear", "seat"),
        ("pedal", "seat"),
        ("pedal", "head"),
        ("seat", "head"),
        ("head", "front"),
    ):
        pen.stroke(joints[one], joints[other], 0.055, frame)
    pen.stroke((-0.18, 0.76), (-0.22, 0.9), 0.04, (60, 60, 64))
    pen.ellipse(-0.22, 0.92, 0.14, 0.04, (30, 28, 28))
    pen.stroke((0.34, 0.8), (0.3, 0.98), 0.045, (60, 60, 64))
    pen.stroke((0.2, 0.98), (0.44, 1.0), 0.045, (40, 40, 44))


def airplane(pen: Pen, rng: np.random.Generator) -> None:
    """An airliner from the side, wings swept, tail fin coloured."""
    body = pick(rng, (240, 242, 245), (240, 242, 245), (190, 195, 205), (250, 220, 90))
    fin = _paint(rng)
    pen.polygon([(-1.15, 0.55), (-1.45, 1.0), (-1.2, 1.0), (-0.75, 0.6)], fin)
    pen.polygon([(-0.1, 0.52), (-0.4, 0.86), (-0.2, 0.86), (0.35, 0.55)], dim(body, 0.7))
    pen.polygon(
        [(-1.3, 0.55), (-0.9, 0.64), (0.9, 0.64), (1.2, 0.52), (1.28, 0.42), (1.0, 0.32), (-0.8, 0.34)], body
    )
    pen.polygon([(0.95, 0.62), (1.12, 0.56), (0.95, 0.54)], (50, 70, 90))
    for x in np.arange(-0.75, 0.85, 0.18):
        pen.ellipse(x, 0.52, 0.035, 0.035, (70, 95, 120))
    pen.polygon([(0.3, 0.44), (-0.45, 0.0), (-0.68, 0.0), (-0.2, 0.42)], dim(body, 0.78))
    pen.ellipse(-0.1, 0.24, 0.16, 0.07, dim(fin, 0.9))
    pen.polygon([(-1.0, 0.5), (-1.4, 0.4), (-1.3, 0.52)], dim(fin, 0.8))


def hot_air_balloon(pen: Pen, rng: np.random.Generator) -> None:
    """A striped envelope with a basket below it."""
    first, second = _paint(rng), _paint(rng)
    for x in (-0.09, 0.09):
        pen.stroke((x * 2, 0.34), (x, 0.16), 0.014, (80, 70, 60))
    pen.polygon([(-0.33, 0.55), (0.33, 0.55), (0.1, 0.26), (-0.1, 0.26)], first)
    pen.ellipse(0, 0.66, 0.37, 0.34, first)
    for half, colour in ((0.26, second), (0.14, first), (0.05, second)):
        pen.ellipse(0, 0.66, half, 0.338, colour)
        pen.polygon(
            [(-half * 0.92, 0.55), (half * 0.92, 0.55), (half * 0.27, 0.26), (-half * 0.27, 0.26)], colour
        )
    pen.box(-0.1, 0.0, 0.1, 0.17, pick(rng, (140, 95, 55), (165, 120, 70)))


def kite(pen: Pen, rng: np.random.Generator) -> None:
    """A diamond of four colours with a tail of bows."""
    colours = [_paint(rng) for _ in range(4)]
    middle, top, bottom = (0.0, 0.68), (0.0, 1.0), (0.0, 0.25)
    left, right = (-0.3, 0.68), (0.3, 0.68)
    x, y = 0.0, 0.25
    for number in range(4):
        following = (x + rng.uniform(-0.14, 0.14), y - 0.12)
        pen.stroke((x, y), following, 0.025, colours[0])
        x, y = following
        pen.polygon(
            [(x - 0.08, y - 0.04), (x - 0.08, y + 0.04), (x + 0.08, y - 0.04), (x + 0.08, y + 0.04)],
            colours[number],
        )
    for corners, colour in zip(
        ((top, left), (left, bottom), (bottom, right), (right, top)), colours, strict=True
    ):
        pen.polygon([middle, *corners], colour)


def traffic_light(pen: Pen, rng: np.random.Generator) -> None:
    """A post with a box of three lamps, one of them lit."""
    post, case = (
        pick(rng, (70, 72, 75), (110, 112, 112)),
        pick(rng, (30, 32, 34), (40, 44, 40), (215, 175, 40)),
    )
    pen.box(-0.025, 0, 0.025, 0.6, post)
    pen.box(-0.07, 0, 0.07, 0.03, post)
    pen.box(-0.12, 0.5, 0.12, 1.0, case)
    lit = rng.integers(3)
    for number, (y, colour) in enumerate(
        ((0.9, (250, 40, 35)), (0.75, (255, 200, 40)), (0.6, (50, 225, 90)))
    ):
        pen.ellipse(0, y, 0.065, 0.06, colour if number == lit else dim(colour, 0.3))


def bench(pen: Pen, rng: np.random.Generator) -> None:
    """A park bench of slats on dark legs."""
    wood, iron = (
        pick(rng, (150, 100, 55), (120, 80, 50), (170, 130, 85), (70, 110, 75)),
        pick(rng, (45, 45, 48), (80, 80, 84)),
    )
    for x in (-0.8, 0.8):
        pen.stroke((x, 0.45), (x - 0.06, 0), 0.08, iron)
        pen.stroke((x, 0.4), (x + 0.08, 1.0), 0.07, iron)
        pen.stroke((x, 0.45), (x + 0.16, 0), 0.08, dim(iron, 0.8))
    for y in (0.58, 0.74, 0.9):
        pen.box(-0.95, y, 1.0, y + 0.11, dim(wood, 0.75 + y / 3))
    pen.polygon([(-1.02, 0.38), (0.98, 0.38), (1.02, 0.5), (-0.96, 0.5)], wood)


def house(pen: Pen, rng: np.random.Generator) -> None:
    """A house with a pitched roof, door, windows and perhaps a chimney."""
    wall = pick(rng, (235, 220, 190), (200, 120, 90), (240, 240, 235), (190, 200, 205), (225, 190, 110))
    roof = pick(rng, (150, 60, 45), (90, 60, 50), (80, 85, 95), (175, 95, 60))
    half = rng.uniform(0.42, 0.7)
    if rng.random() < 0.6:
        pen.box(half * 0.4, 0.7, half * 0.4 + 0.1, 1.02, dim(roof, 0.8))
    pen.box(-half, 0, half, 0.6, wall)
    inset = rng.uniform(0.0, 0.6) * half
    pen.polygon([(-half - 0.08, 0.58), (half + 0.08, 0.58), (inset, 0.98), (-inset, 0.98)], roof)
    door = pick(rng, (110, 70, 40), (60, 80, 110), (140, 40, 40))
    pen.box(-0.08, 0, 0.08, 0.32, door)
    glass = pick(rng, (120, 165, 190), (255, 225, 130), (70, 90, 105))
    for side in (-1, 1):
        x = side * half * 0.6
        pen.box(x - 0.11, 0.22, x + 0.11, 0.44, (245, 245, 240))
        pen.box(x - 0.09, 0.24, x + 0.09, 0.42, glass)
        pen.box(x - 0.01, 0.24, x + 0.01, 0.42, (245, 245, 240))


def umbrella(pen: Pen, rng: np.random.Generator) -> None:
    """A parasol of two colours on a slanted pole."""
    first, second = _paint(rng), pick(rng, (250, 250, 250), (250, 220, 80), (60, 150, 200))
    pen.stroke((0, 0), (0, 0.9), 0.03, (150, 120, 90))
    arc = [(0.55 * np.cos(a), 0.62 + 0.36 * np.sin(a)) for a in np.linspace(0, np.pi, 13)]
    pen.polygon(arc, first)
    for number in (1, 5, 9):
        pen.polygon([(0, 0.98), *arc[number : number + 3], (arc[number + 1][0] * 0.95, 0.62)], second)


def ball(pen: Pen, rng: np.random.Generator) -> None:
    """A ball with segments of two colours, or a football's dark patches."""
    first, second = _paint(rng), pick(rng, (250, 250, 250), (250, 220, 60), (40, 40, 44))
    pen.ellipse(0, 0.5, 0.5, 0.5, first)
    start = rng.uniform(0, 2 * np.pi)
    for number in range(3):
        arc = np.linspace(0, np.pi / 3, 5) + start + number * 2 * np.pi / 3
        pen.polygon([(0, 0.5), *zip(0.5 * np.cos(arc), 0.5 + 0.5 * np.sin(arc), strict=True)], second)
    pen.ellipse(0, 0.5, 0.12, 0.12, (250, 250, 250))


def lighthouse(pen: Pen, rng: np.random.Generator) -> None:
    """A tapering banded tower with a lamp room."""
    band = pick(rng, (200, 40, 40), (40, 60, 140), (40, 40, 44))
    for number in range(5):
        low, high = number * 0.15, (number + 1) * 0.15
        wide, narrow = 0.15 - 0.07 * low / 0.75, 0.15 - 0.07 * high / 0.75
        pen.polygon(
            [(-wide, low), (wide, low), (narrow, high), (-narrow, high)],
            band if number % 2 else (245, 245, 240),
        )
    pen.box(-0.11, 0.75, 0.11, 0.78, (60, 60, 64))
    pen.box(-0.06, 0.78, 0.06, 0.9, (255, 235, 140))
    pen.polygon([(-0.09, 0.9), (0.09, 0.9), (0, 1.0)], band)


def tent(pen: Pen, rng: np.random.Generator) -> None:
    """A ridge tent with a dark, open entrance."""
    cloth = pick(rng, (220, 120, 40), (60, 120, 70), (50, 90, 160), (200, 50, 60), (215, 190, 120))
    pen.polygon([(-0.2, 0.95), (0.85, 0.78), (1.1, 0.0), (0.3, 0.0)], dim(cloth, 0.72))
    pen.polygon([(-0.85, 0.0), (-0.2, 1.0), (0.42, 0.0)], cloth)
    pen.polygon([(-0.45, 0.0), (-0.2, 0.72), (0.05, 0.0)], (40, 36, 40))
    pen.polygon([(-0.2, 0.72), (0.05, 0.0), (0.16, 0.0)], dim(cloth, 1.3))


def table(pen: Pen, rng: np.random.Generator) -> None:
    """A table with a thick top, or a round one with a cloth."""
    wood = pick(rng, (150, 100, 55), (190, 145, 95), (100, 65, 40), (235, 232, 225))
    for x, factor in ((-0.7, 0.85), (0.7, 0.85), (-0.84, 1.0), (0.84, 1.0)):
        pen.stroke((x, 0.9), (x, 0.0 if factor == 1.0 else 0.12), 0.11, dim(wood, 0.75 * factor))
    pen.polygon([(-1.0, 0.86), (1.0, 0.86), (0.84, 1.06), (-0.84, 1.06)], dim(wood, 1.12))
    pen.box(-1.0, 0.76, 1.0, 0.87, dim(wood, 0.85))


def chair(pen: Pen, rng: np.random.Generator) -> None:
    """A chair seen from the side and a little from the front."""
    wood, seat = pick(rng, (140, 90, 50), (60, 45, 38), (225, 220, 210), (180, 140, 90)), _paint(rng)
    pen.stroke((-0.26, 0.0), (-0.26, 0.5), 0.07, wood)
    pen.stroke((0.26, 0.0), (0.24, 0.5), 0.07, wood)
    pen.stroke((-0.1, 0.1), (-0.1, 0.5), 0.06, dim(wood, 0.7))
    pen.stroke((0.38, 0.1), (0.36, 0.5), 0.06, dim(wood, 0.7))
    pen.stroke((-0.27, 0.45), (-0.34, 1.0), 0.07, wood)
    pen.stroke((-0.06, 0.5), (-0.12, 0.98), 0.06, wood)
    for y in (0.68, 0.84, 0.96):
        pen.stroke((-0.31, y), (-0.1, y - 0.02), 0.07, wood)
    pen.polygon([(-0.3, 0.44), (0.28, 0.44), (0.42, 0.55), (-0.12, 0.55)], seat)
    pen.polygon([(-0.3, 0.38), (0.28, 0.38), (0.28, 0.45), (-0.3, 0.45)], dim(seat, 0.7))


def clock(pen: Pen, rng: np.random.Generator) -> None:
    """A round wall clock with marks and two hands at some time of the day."""
    rim, face = _paint(rng), pick(rng, (250, 248, 240), (240, 230, 205), (40, 42, 48))
    hand = (25, 25, 28) if face[0] > 128 else (240, 240, 235)
    pen.ellipse(0, 0.5, 0.5, 0.5, rim)
    pen.ellipse(0, 0.5, 0.41, 0.41, face)
    for angle in np.linspace(0, 2 * np.pi, 12, endpoint=False):
        cos, sin = np.cos(angle), np.sin(angle)
        pen.stroke((0.31 * cos, 0.5 + 0.31 * sin), (0.38 * cos, 0.5 + 0.38 * sin), 0.035, hand)
    for length, width in ((0.2, 0.06), (0.31, 0.04)):
        angle = rng.uniform(0, 2 * np.pi)
        pen.stroke((0, 0.5), (length * np.cos(angle), 0.5 + length * np.sin(angle)), width, hand)


def cake(pen: Pen, rng: np.random.Generator) -> None:
    """A cake of two layers with icing, cherries and candles."""
    sponge, icing = (
        pick(rng, (200, 150, 90), (110, 65, 40), (240, 215, 160)),
        pick(rng, (250, 240, 240), (245, 170, 195), (120, 70, 50), (190, 225, 240)),
    )
    pen.ellipse(0, 0.05, 0.62, 0.05, (235, 235, 238))
    pen.box(-0.5, 0.06, 0.5, 0.34, sponge)
    pen.box(-0.5, 0.17, 0.5, 0.22, icing)
    pen.box(-0.52, 0.32, 0.52, 0.42, icing)
    for x in np.arange(-0.42, 0.5, 0.21):
        pen.ellipse(x, 0.31, 0.07, 0.07, icing)
    pen.box(-0.34, 0.42, 0.34, 0.62, sponge)
    pen.box(-0.36, 0.58, 0.36, 0.68, icing)
    for x in np.linspace(-0.24, 0.24, rng.integers(2, 5)):
        pen.box(x - 0.025, 0.68, x + 0.025, 0.88, _paint(rng))
        pen.ellipse(x, 0.93, 0.03, 0.06, (255, 200, 60))


DRAWERS = {
    "boat": boat,
    "car": car,
    "bus": bus,
    "train": train,
    "bicycle": bicycle,
    "airplane": airplane,
    "hot air balloon": hot_air_balloon,
    "kite": kite,
    "traffic light": traffic_light,
    "bench": bench,
    "house": house,
    "umbrella": umbrella,
    "ball": ball,
    "lighthouse": lighthouse,
    "tent": tent,
    "table": table,
    "chair": chair,
    "clock": clock,
    "cake": cake,
}
