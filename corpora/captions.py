"""Cleaning of captions."""

from __future__ import annotations

import contextlib
import html
import re
import unicodedata
import urllib.parse
from dataclasses import dataclass

from configs.schema import IngestConfig
from corpora.reasons import Reason

__all__ = ["Problem", "clean_caption", "longest_caption_bytes", "unescape"]

# Control characters (newlines and tabs among them), and what only steers the layout of text. The joiners
# U+200C and U+200D stay: scripts and emoji are spelled with them.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b\u200e\u200f\u2028-\u202e\u2060\u2066-\u2069\ufeff]+")
_SPACE = re.compile(r"\s+")
_TAG = re.compile(r"</?[A-Za-z][^<>]{0,1000}>")


@dataclass(frozen=True)
class Problem:
    """Why a sample is rejected."""

    reason: Reason
    detail: str = ""


def longest_caption_bytes(config: IngestConfig) -> int:
    """More bytes of a caption than this are never read: UTF-8 has at most four a character."""
    return 4 * (2 * config.max_caption_chars + 16)


def clean_caption(caption: bytes | str | None, config: IngestConfig) -> str | Problem:
    """One line of NFC text without control characters, cut to ``max_caption_chars``; or why not."""
    if caption is None:
        return Problem(Reason.MISSING_CAPTION)
    text = _decode(caption, longest_caption_bytes(config)) if isinstance(caption, bytes) else caption
    if isinstance(text, Problem):
        return text
    # Twice the limit holds limit characters of ordinary text with its double spaces.
    text = unicodedata.normalize("NFC", text[: 2 * config.max_caption_chars])
    text = _SPACE.sub(" ", _CONTROL.sub(" ", text)).strip()[: config.max_caption_chars].rstrip()
    if any("\ud800" <= char <= "\udfff" for char in text):  # JSON can spell half a character
        return Problem(Reason.CAPTION_NOT_UTF8, "a lone surrogate")
    if len(text) < config.min_caption_chars:
        return Problem(Reason.SHORT_CAPTION, f"{len(text)} characters")
    return text


def _decode(data: bytes, limit: int) -> str | Problem:
    """Strict UTF-8 of the first ``limit`` bytes; a character cut by the limit is left out."""
    head = data[:limit]
    try:
        return head.decode("utf-8")
    except UnicodeDecodeError as error:
        if len(data) >= limit and error.start >= limit - 3 and error.reason == "unexpected end of data":
            return head[: error.start].decode("utf-8")
        return Problem(Reason.CAPTION_NOT_UTF8, f"byte 0x{head[error.start]:02x} at {error.start}")


def unescape(text: str) -> str:
    """YFCC's titles and descriptions are URL-quoted HTML: undo both, drop tags.

    A plus is a space only where the text has no spaces of its own, and a text whose escapes are no UTF-8
    stays as it is: tables that were cleaned before hold "c++" and "50%de".
    """
    unquote = urllib.parse.unquote if " " in text.strip() else urllib.parse.unquote_plus
    with contextlib.suppress(UnicodeDecodeError):
        text = unquote(text, errors="strict")
    return _TAG.sub(" ", html.unescape(text))
