"""The HTML page of the report: one file, no request to anywhere."""

from __future__ import annotations

import base64
import io
import math
from functools import lru_cache
from typing import Any

import jinja2
from markupsafe import Markup
from PIL import Image

from corpora.reasons import EXPLANATIONS
from spark_jobs.reporting.data import ReportData, load_report_data
from spark_jobs.reporting.figures import histogram, line_chart, short
from spark_jobs.reporting.results import Training

__all__ = ["load_report_data", "render_report"]

_GREY = Markup("data:image/gif;base64,R0lGODlhAQABAIAAAMLCwgAAACH5BAAAAAAALAAAAAABAAEAAAICRAEAOw==")
_CURVES = {
    "loss": "total",
    "caption_loss": "caption",
    "prompt_loss": "prompts",
    "images_per_second": "Images a second",
    "grad_norm": "Norm of the gradient",
    "lr": "Learning rate",
}


def render_report(data: ReportData) -> str:
    """The page as text; captions and names are escaped, pictures are inside."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("spark_jobs.reporting"),  # also from cocu.zip
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        thumbnail=_thumbnail,
        number=_number,
        percent=lambda value: f"{value:.0%}",
        points=lambda value: "-" if value is None else f"{value:.1f}",
        picture=_picture,
    )
    return environment.get_template("report.html.j2").render(
        data=data,
        figures=[
            ("Concepts that a pair's caption names", histogram(data.caption_counts, whole=True)),
            ("Concepts that its archive adds", histogram(data.added_counts, whole=True)),
            ("Cosines of anchor and neighbours", histogram(data.similarities)),
            ("Scores of the archives' concepts", histogram(data.scores)),
        ],
        curves=_curves(data.training) if data.training else [],
        rho_curve=_rho_curve(data.probe) if data.probe and len(data.probe["curve"]) > 1 else None,
        explanations={str(reason): text for reason, text in EXPLANATIONS.items()},
        top_count=max((count for _, count in data.concepts), default=1),
        score_range=_score_range(data),
    )


def _curves(training: Training) -> list[tuple[str, list[str], Markup]]:
    """Title, names of the lines (none for a single one) and figure of each chart."""
    charts: list[tuple[str, list[str], Markup]] = []
    if training.losses:
        names = [_CURVES[name] for name in training.losses]
        charts.append(("Loss", names, line_chart(training.losses, "loss")))
    for name, curve in training.curves.items():
        charts.append((_CURVES[name], [], line_chart({name: curve}, _CURVES[name].lower())))
    return charts


def _rho_curve(probe: dict[str, Any]) -> Markup:
    """How well each rho did on left-out pairs, rho on a logarithmic axis."""
    points = sorted((math.log10(rho), value) for rho, value in probe["curve"])
    ends = tuple(f"rho {10 ** points[place][0]:g}" for place in (0, -1))
    return line_chart({"probe": points}, "precision of left-out captions by rho,", (ends[0], ends[1]))


def _number(value: Any) -> str:
    """Numbers for reading; other values as they are."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else short(value)


def _score_range(data: ReportData) -> tuple[float, float]:
    scores = [concept.score for pair in data.pairs for concept in pair.concepts]
    return (min(scores), max(scores)) if scores else (0.0, 1.0)


@lru_cache(maxsize=4096)
def _thumbnail(image: bytes, short_side: int = 128) -> Markup:
    """A data URI; a grey square for pairs without an image."""
    if not image:
        return _GREY
    with Image.open(io.BytesIO(image), formats=("JPEG",)) as opened:
        picture = opened.convert("RGB")
        scale = short_side / min(picture.size)
        if scale < 1:
            size = [max(1, round(side * scale)) for side in picture.size]
            picture = picture.resize(size, Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=80)
    return Markup("data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode())


def _picture(content: bytes) -> Markup:
    """A PNG as it is."""
    return Markup("data:image/png;base64," + base64.b64encode(content).decode())
