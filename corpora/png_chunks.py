"""The chunks of a PNG file: the file without what says nothing of its pixels."""

from __future__ import annotations

import zlib

__all__ = ["strip_png"]

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PIXELS = frozenset((b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"))
_MOST_METADATA = 1 << 16


def strip_png(data: bytes) -> bytes | None:
    """The critical chunks, transparency, and what may hold the orientation; None if it is no PNG.

    Decoders give a picture up for a checksum, a length or a size that they do not like in a chunk that no pixel
    needs: times, texts, colour profiles. What is cut off stays so: the decoder is to see it.
    """
    if data[:8] != _SIGNATURE:
        return None
    kept = [_SIGNATURE]
    place = 8
    while place + 12 <= len(data):
        size, kind = int.from_bytes(data[place : place + 4], "big"), data[place + 4 : place + 8]
        end = place + 12 + size
        chunk = data[place:end]
        critical = not kind[0] & 0x20
        if critical or kind in _PIXELS or end > len(data) or _tells_orientation(kind, chunk):
            kept.append(chunk)
        place = end
        if kind == b"IEND":
            return b"".join(kept)
    return b"".join((*kept, data[place:]))


def _tells_orientation(kind: bytes, chunk: bytes) -> bool:
    """EXIF, also as ImageMagick writes it into a text, and XMP; whole and of a size that it can have."""
    if len(chunk) > _MOST_METADATA or zlib.crc32(chunk[4:-4]) != int.from_bytes(chunk[-4:], "big"):
        return False
    texts = (b"Raw profile type exif\0", b"XML:com.adobe.xmp\0")
    return kind == b"eXIf" or (kind in (b"tEXt", b"zTXt", b"iTXt") and chunk[8:].startswith(texts))
