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

__all__ = ["Problem", "clean_caption", "longest_caption_bytes", "plain_text", "unquote"]

# Control characters (newlines and tabs among them), and what only steers the layout of text. The joiners
# U+200C and U+200D stay: scripts and emoji are spelled with them.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b\u200e\u200f\u2028-\u202e\u2060\u2066-\u2069\ufeff]+")
_SPACE = re.compile(r"\s+")
# With their semicolon, or one of the few that people leave it out of: "cats &notes" is no "cats ¬es".
_ENTITY = re.compile(
    r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});|&(?:amp|lt|gt|quot|nbsp|#39)(?![A-Za-z0-9;=])"
)
# HTML's elements only: CC12M's <PERSON> is a word.
_ELEMENTS = (
    "a abbr acronym address area article aside audio b base bdi bdo big blockquote body br button canvas center cite "
    "code col colgroup dd del details dfn dialog dir div dl dt em embed fieldset figcaption figure font footer form "
    "frame frameset h[1-6] head header hgroup hr html i iframe img input ins kbd label legend li link main map mark "
    "menu meta nav noscript object ol optgroup option p param picture pre q s samp script section select small source "
    "span strike strong style sub summary sup svg table tbody td template textarea tfoot th thead time title tr track "
    "tt u ul var video wbr"
).split()
_TAG = re.compile(
    rf"<!--[^<>]{{0,2000}}-->|</?(?:{'|'.join(_ELEMENTS)})(?:[\s/][^<>]{{0,2000}})?>", re.IGNORECASE
)


@dataclass(frozen=True)
class Problem:
    """Why a sample is rejected."""

    reason: Reason
    detail: str = ""


def longest_caption_bytes(config: IngestConfig) -> int:
    """More bytes of a caption than this are never read: UTF-8 has at most four a character."""
    return 4 * (2 * config.max_caption_chars + 16)


def clean_caption(caption: bytes | str | None, config: IngestConfig) -> str | Problem:
    """One line of NFC text without HTML and control characters, cut to ``max_caption_chars``; or why not."""
    if caption is None:
        return Problem(Reason.MISSING_CAPTION)
    text = _decode(caption, longest_caption_bytes(config)) if isinstance(caption, bytes) else caption
    if isinstance(text, Problem):
        return text
    text = plain_text(text[: longest_caption_bytes(config)])
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


def plain_text(text: str) -> str:
    """What a browser would show: entities resolved, twice since many were escaped twice, and tags gone."""
    if "&" in text:
        text = _ENTITY.sub(_resolved, _ENTITY.sub(_resolved, text))
    return _TAG.sub(" ", text) if "<" in text else text


def _resolved(entity: re.Match[str]) -> str:
    return html.unescape(entity.group())


def unquote(text: str) -> str:
    """YFCC's titles and descriptions are URL-quoted: undo it.

    A plus is a space only where the text has no spaces of its own, and a text whose escapes are no UTF-8
    stays as it is: tables that were cleaned before hold "c++" and "50%de".
    """
    undo = urllib.parse.unquote if " " in text.strip() else urllib.parse.unquote_plus
    with contextlib.suppress(UnicodeDecodeError):
        return undo(text, errors="strict")
    return text
