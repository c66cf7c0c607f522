"""Colours: RGB triples of floats from 0 to 255, and how they vary."""

from __future__ import annotations

import numpy as np

__all__ = ["Colour", "dim", "pick", "tone"]

Colour = tuple[float, float, float]


def tone(rng: np.random.Generator, colour: Colour, spread: float = 14.0) -> Colour:
    """``colour`` with every channel moved by up to ``spread`` and the whole made lighter or darker."""
    factor = rng.uniform(0.82, 1.12)
    red, green, blue = rng.uniform(-spread, spread, 3)
    return _limited(colour[0] * factor + red, colour[1] * factor + green, colour[2] * factor + blue)


def pick(rng: np.random.Generator, *colours: Colour) -> Colour:
    """One of ``colours``, varied by :func:`tone`."""
    return tone(rng, colours[int(rng.integers(len(colours)))])


def dim(colour: Colour, factor: float) -> Colour:
    """``colour`` times ``factor``, which may be above 1."""
    return _limited(colour[0] * factor, colour[1] * factor, colour[2] * factor)


def _limited(red: float, green: float, blue: float) -> Colour:
    return min(max(red, 0.0), 255.0), min(max(green, 0.0), 255.0), min(max(blue, 0.0), 255.0)
