"""The page of segment: each photo beside its classes and groups, pictures in files next to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import numpy as np

from configs.output_folder import write_whole
from evaluation.html_pages import page_environment
from evaluation.pictures import css_colour

__all__ = ["SHOWN_SHARE", "PageEntry", "write_segment_page"]

SHOWN_SHARE = 0.0005
"""Classes with less of a photo are not mentioned."""


@dataclass(frozen=True)
class PageEntry:
    """A photo on the page: its name, (height, width), pictures as (caption, address from the page), and shares by class."""

    name: str
    size: tuple[int, int]
    pictures: list[tuple[str, str]]
    mask: str
    shares: list[float]


def write_segment_page(
    path: Path,
    entries: Sequence[PageEntry],
    names: Sequence[str],
    palette: np.ndarray,
    facts: Sequence[tuple[str, str]],
    failures: Sequence[str],
) -> None:
    """Write the page.

    Args:
        path: of the page; pictures are addressed from its folder.
        entries: the photos. names: classes, background included. palette: (C, 3) uint8.
        facts: (name, value) of model and settings.
        failures: sentences about photos that could not be read.
    """
    environment = page_environment()
    environment.filters["address"] = quote
    environment.filters["order"] = lambda shares: [
        n for n in np.argsort(shares)[::-1] if shares[n] >= SHOWN_SHARE
    ]
    page = environment.get_template("segment.html.j2").render(
        title="What the model sees",
        entries=entries,
        classes=[(name, css_colour(colour)) for name, colour in zip(names, palette, strict=True)],
        facts=facts,
        failures=failures,
    )
    write_whole(path, page)
