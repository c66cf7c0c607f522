"""Cleaning of captions."""

from __future__ import annotations

import html
import re
import unicodedata
import urllib.parse
from dataclasses import dataclass

from configs.schema import IngestConfig
from spark_jobs.reasons import Reason

__all__ = ["Problem", "clean_caption", "unescape"]

# Control characters (newlines and tabs among them), and what only steers the layout of text.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b\u200e\u200f\u2028\u2029\ufeff]+")
_SPACE = re.compile(r"\s+")


@dataclass(frozen=True)
class Problem:
    """Why a sample is rejected."""

    reason: Reason
    detail: str = ""


def clean_caption(caption: bytes | str | None, config: IngestConfig) -> str | Problem:
    """One line of NFC text without control characters, cut to ``max_caption_chars``; or why not."""
    if caption is None:
        return Problem(Reason.MISSING_CAPTION)
    if isinstance(caption, bytes):
        # Four bytes a character at most: a caption of many MB is not decoded whole.
        limit = 4 * (config.max_caption_chars + 4)
        cut = len(caption) > limit
        try:
            caption = caption[:limit].decode("utf-8", errors="strict")
        except UnicodeDecodeError as error:
            if not (cut and error.start >= limit - 4):
                return Problem(Reason.CAPTION_NOT_UTF8, f"byte {caption[error.start]:#04x} at {error.start}")
            caption = caption[: error.start].decode("utf-8")
    # Twice the limit is enough to find limit characters in ordinary text with its double spaces.
    text = unicodedata.normalize("NFC", caption[: 2 * config.max_caption_chars])
    text = _SPACE.sub(" ", _CONTROL.sub(" ", text)).strip()
    if len(text) < config.min_caption_chars:
        return Problem(Reason.SHORT_CAPTION, f"{len(text)} characters")
    return text[: config.max_caption_chars].rstrip()


def unescape(text: str) -> str:
    """YFCC's titles and descriptions are URL-quoted HTML: undo both, drop tags."""
    plain = html.unescape(urllib.parse.unquote_plus(text))
    return re.sub(r"<[^<>]{0,500}>", " ", plain)
