"""Figures of the report as SVG: they need no script, follow the page's colours and can be read aloud."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from markupsafe import Markup

__all__ = ["histogram", "line_chart", "short"]

_WIDTH, _HEIGHT, _MARGIN = 420, 150, 26


def histogram(values: np.ndarray, whole: bool = False) -> Markup:
    """Bars with the axis' ends, the mean as a dashed line, and each bar's count as its title.

    Args:
        values: (n,) numbers.
        whole: one bar for each whole number, as far as there is room.
    """
    values = np.asarray(values, dtype=np.float64)
    if not len(values):
        return Markup("<p>no values</p>")
    low, high = float(values.min()), float(values.max())
    if whole and high - low < 60:
        edges = np.arange(low, high + 2) - 0.5
    else:
        edges = np.linspace(low, high if high > low else low + 1, 31)
    counts, _ = np.histogram(values, edges)
    width, top = _WIDTH / len(counts), counts.max()
    bars = "".join(
        f'<rect x="{number * width + 0.5:.1f}" y="{_HEIGHT * (1 - count / top):.1f}" width="{max(width - 1, 0.5):.1f}" '
        f'height="{_HEIGHT * count / top:.1f}"><title>{_range(edges, number, whole)}: {count:,}</title></rect>'
        for number, count in enumerate(counts)
    )
    mean = float(values.mean())
    place = (mean - edges[0]) / (edges[-1] - edges[0]) * _WIDTH
    form = "{:.0f}" if whole else "{:.2f}"
    ends = form.format(low), form.format(high)
    line = f'<line class="mean" x1="{place:.1f}" x2="{place:.1f}" y1="-4" y2="{_HEIGHT}"/>'
    label = f"histogram from {ends[0]} to {ends[1]}, mean {mean:.2f}, {len(values):,} values"
    return _framed(bars + line, label, ends[0], f"mean {mean:.2f}", ends[1])


def line_chart(
    curves: Mapping[str, Sequence[tuple[float, float]]], what: str, ends: tuple[str, str] | None = None
) -> Markup:
    """Curves of (step, value) over common axes that are labelled with their ends; class ``lineN`` colours the N-th.

    Args:
        curves: by name, each with two points or more.
        what: for who cannot see it.
        ends: texts below the left and the right end; None: "step" and its number.
    """
    points = np.array([point for curve in curves.values() for point in curve], dtype=np.float64)
    (left, low), (right, high) = points.min(axis=0), points.max(axis=0)
    lines = ""
    for number, curve in enumerate(curves.values()):
        x, y = np.array(curve, dtype=np.float64).T
        x = (x - left) / max(right - left, 1e-12) * _WIDTH
        y = _HEIGHT - (y - low) / max(high - low, 1e-12) * _HEIGHT
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
        lines += f'<polyline class="line{number}" points="{path}"/>'
    first = next(iter(curves.values()))
    label = f"{what} from {short(first[0][1])} to {short(first[-1][1])}"
    axis = f'<line class="axis" x1="0" x2="{_WIDTH}" y1="{_HEIGHT}" y2="{_HEIGHT}"/>'
    first_end, last_end = ends or (f"step {left:,.0f}", f"step {right:,.0f}")
    return _framed(axis + lines, label, first_end, f"{short(low)} to {short(high)}", last_end)


def short(value: float) -> str:
    """Three digits or so, as 1,234 or 0.012 or 4.0e-06."""
    size = abs(value)
    if size >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if size >= 0.001 or not size else f"{value:.1e}"


def _framed(inside: str, label: str, left: str, middle: str, right: str) -> Markup:
    """An SVG with three texts below; numbers only, so nothing needs escaping."""
    base = _HEIGHT + 20
    return Markup(
        f'<svg viewBox="0 -4 {_WIDTH} {_HEIGHT + 4 + _MARGIN}" role="img" aria-label="{label}">{inside}'
        f'<text x="0" y="{base}">{left}</text>'
        f'<text x="{_WIDTH / 2}" y="{base}" text-anchor="middle">{middle}</text>'
        f'<text x="{_WIDTH}" y="{base}" text-anchor="end">{right}</text></svg>'
    )


def _range(edges: np.ndarray, number: int, whole: bool) -> str:
    if whole and edges[1] - edges[0] == 1:
        return f"{edges[number] + 0.5:.0f}"
    return f"{edges[number]:.3f} to {edges[number + 1]:.3f}"
