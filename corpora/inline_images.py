"""Images that stand as text where others have a path: `data:` URLs, and bare base64 as many a table has it."""

from __future__ import annotations

import base64
import binascii
import re
import urllib.parse

from configs.schema import IngestConfig
from corpora.captions import Problem
from corpora.reasons import Reason
from corpora.samples import too_big

__all__ = ["inline_image"]

# What JPEG, PNG, GIF, WebP and TIFF begin with: enough to tell base64 from a path.
_BEGINNINGS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"RIFF", b"II*\0", b"MM\0*")
_HEAD = 16  # characters, of which 12 bytes come
_WEB_SAFE = str.maketrans("-_", "+/")


def inline_image(text: str, limits: IngestConfig) -> bytes | Problem | None:
    """The bytes of an image in a text, or what is wrong with it; None: the text is something else.

    Both alphabets of base64 are read, with line breaks and without the signs at its end. The size is known, and
    compared with ``ingest.max_image_bytes``, before anything is decoded.
    """
    if text[:5].lower() == "data:":
        kind, _, body = text.partition(",")
        if not kind.lower().endswith(";base64"):
            return Problem(Reason.UNREADABLE_IMAGE, f"a data: URL that is not base64: {kind[:60]}")
    elif _begins_like_an_image(text):
        body = text
    else:
        return None
    if len(body) * 3 // 4 > 2 * limits.max_image_bytes:  # breaks and escapes are a part of it at most
        return too_big(len(body) * 3 // 4)
    return _decoded(body, limits)


def _begins_like_an_image(text: str) -> bool:
    try:
        head = base64.b64decode(text[:_HEAD].translate(_WEB_SAFE), validate=True)
    except (binascii.Error, ValueError):
        return False
    return head.startswith(_BEGINNINGS)


def _decoded(body: str, limits: IngestConfig) -> bytes | Problem:
    plain = urllib.parse.unquote(body) if "%" in body else body
    plain = re.sub(r"\s+", "", plain).rstrip("=").translate(_WEB_SAFE)
    size = len(plain) * 3 // 4
    if size > limits.max_image_bytes:
        return too_big(size)
    if len(plain) % 4 == 1:
        return Problem(
            Reason.TRUNCATED_IMAGE, f"base64 of {len(plain)} characters, which ends in a byte's middle"
        )
    try:
        return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        return Problem(Reason.UNREADABLE_IMAGE, f"not base64: {error}"[:200])
