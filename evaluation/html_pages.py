"""Templates of the pages that evaluation writes: one look, everything escaped, no request to anywhere."""

from __future__ import annotations

from pathlib import Path

import jinja2

__all__ = ["page_environment"]


def page_environment() -> jinja2.Environment:
    """Templates of this folder; what is put into them is escaped."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
