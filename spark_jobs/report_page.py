"""The HTML page of the report: one file, no request to anywhere."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import jinja2
import numpy as np
from markupsafe import Markup
from PIL import Image

from spark_jobs.reasons import EXPLANATIONS, Reason
from spark_jobs.report_data import ReportData, load_report_data

__all__ = ["load_report_data", "render_report"]

_WIDTH, _HEIGHT = 420, 150


def render_report(data: ReportData) -> str:
    """The page as text; captions and names are escaped, pictures are inside."""
    folder = Path(__file__).parent / "templates"
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    environment.filters.update(thumbnail=_thumbnail, number=_number, percent=lambda value: f"{value:.0%}")
    figures = [
        ("Concepts named by a pair's own caption", _histogram(data.caption_counts, whole=True)),
        ("Concepts the archive adds", _histogram(data.added_counts, whole=True)),
        ("Similarity of the neighbours", _histogram(data.similarities)),
        ("Scores of the archives' concepts", _histogram(data.scores)),
    ]
    curve = (data.training or {}).get("losses") or []
    return environment.get_template("report.html.j2").render(
        data=data,
        figures=figures,
        curve=_curve(curve) if len(curve) > 1 else None,
        explanations={str(reason): text for reason, text in EXPLANATIONS.items()},
        known_reasons={str(reason) for reason in Reason},
        top_count=max((count for _, count in data.concepts), default=1) or 1,
        score_range=_score_range(data),
        pictures=[(name, _picture(content)) for name, content in data.pictures],
    )


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or float(value).is_integer() else f"{value:,.2f}"


def _score_range(data: ReportData) -> tuple[float, float]:
    scores = [concept.score for pair in data.pairs for concept in pair.concepts]
    return (min(scores), max(scores)) if scores else (0.0, 1.0)


@lru_cache(maxsize=4096)
def _thumbnail(image: bytes, short_side: int = 128) -> Markup:
    """A data URI; a grey square for pairs without an image."""
    if not image:
        return Markup("data:image/gif;base64,R0lGODlhAQABAIAAAMLCwgAAACH5BAAAAAAALAAAAAABAAEAAAICRAEAOw==")
    with Image.open(io.BytesIO(image)) as opened:
        picture = opened.convert("RGB")
        scale = short_side / min(picture.size)
        if scale < 1:
            picture = picture.resize(
                [max(1, round(side * scale)) for side in picture.size], Image.Resampling.LANCZOS
            )
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=80)
    return Markup("data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode())


def _picture(content: bytes) -> Markup:
    kind = "png" if content.startswith(b"\x89PNG") else "jpeg"
    return Markup(f"data:image/{kind};base64,{base64.b64encode(content).decode()}")


def _histogram(values: np.ndarray, whole: bool = False) -> Markup:
    """Bars as SVG, with the axis' ends, the mean and a title for screen readers."""
    values = np.asarray(values, dtype=np.float64)
    if not len(values):
        return Markup("<p>no values</p>")
    low, high = float(values.min()), float(values.max())
    if whole:
        edges = np.arange(low, high + 2) - 0.5
    else:
        edges = np.linspace(low, high if high > low else low + 1, 31)
    counts, _ = np.histogram(values, edges)
    width = _WIDTH / len(counts)
    top = counts.max() or 1
    bars = "".join(
        f'<rect x="{number * width + 0.5:.1f}" y="{_HEIGHT * (1 - count / top):.1f}" width="{max(width - 1, 0.5):.1f}" '
        f'height="{_HEIGHT * count / top:.1f}"><title>{_range(edges, number, whole)}: {count:,}</title></rect>'
        for number, count in enumerate(counts)
    )
    mean = float(values.mean())
    place = (mean - edges[0]) / (edges[-1] - edges[0]) * _WIDTH
    form = "{:.0f}" if whole else "{:.2f}"
    text = f"from {form.format(low)} to {form.format(high)}, mean {mean:.2f}, {len(values):,} values"
    return Markup(
        f'<svg viewBox="0 -4 {_WIDTH} {_HEIGHT + 24}" role="img" aria-label="histogram {text}">{bars}'
        f'<line class="mean" x1="{place:.1f}" x2="{place:.1f}" y1="-4" y2="{_HEIGHT}"/>'
        f'<text x="0" y="{_HEIGHT + 16}">{form.format(low)}</text>'
        f'<text x="{_WIDTH}" y="{_HEIGHT + 16}" text-anchor="end">{form.format(high)}</text>'
        f'<text x="{_WIDTH / 2}" y="{_HEIGHT + 16}" text-anchor="middle">mean {mean:.2f}</text></svg>'
    )


def _range(edges: np.ndarray, number: int, whole: bool) -> str:
    return f"{edges[number] + 0.5:.0f}" if whole else f"{edges[number]:.3f} to {edges[number + 1]:.3f}"


def _curve(losses: Sequence[Sequence[float]]) -> Markup:
    """A line of (step, loss)."""
    steps = np.array([point[0] for point in losses], dtype=np.float64)
    values = np.array([point[1] for point in losses], dtype=np.float64)
    low, high = float(values.min()), float(values.max())
    x = (steps - steps[0]) / max(steps[-1] - steps[0], 1e-9) * _WIDTH
    y = _HEIGHT - (values - low) / max(high - low, 1e-9) * _HEIGHT
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
    return Markup(
        f'<svg viewBox="0 -4 {_WIDTH} {_HEIGHT + 24}" role="img" aria-label="training loss from {values[0]:.2f} to {values[-1]:.2f}">'
        f'<polyline points="{points}"/><text x="0" y="{_HEIGHT + 16}">step {steps[0]:.0f}: {values[0]:.2f}</text>'
        f'<text x="{_WIDTH}" y="{_HEIGHT + 16}" text-anchor="end">step {steps[-1]:.0f}: {values[-1]:.2f}</text></svg>'
    )
