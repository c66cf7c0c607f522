"""The segments of a JPEG file: its orientation, and the file without metadata, its pixels untouched."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

__all__ = ["JpegFile", "strip_jpeg"]

# Ends the entropy-coded data of a scan: 0xFF followed by neither a stuffed zero, a restart mark nor a fill byte.
_NEXT_MARKER = re.compile(rb"\xff+([^\x00\xd0-\xd7\xff])")
_SOS, _EOI, _APP0, _APP1, _APP14, _APP15, _COM = 0xDA, 0xD9, 0xE0, 0xE1, 0xEE, 0xEF, 0xFE
_ORIENTATION = 0x0112


@dataclass(frozen=True)
class JpegFile:
    """A JPEG without metadata (EXIF, ICC, XMP, comments, what follows the image); the JFIF and Adobe
    segments stay, since they say what the colours mean."""

    data: bytes
    orientation: int
    scans: int
    complete: bool


def strip_jpeg(data: bytes) -> JpegFile | None:
    """The parsed file, or None if it does not start like a JPEG.

    Linear in the length of the file whatever is in it: Pillow joins EXIF segments pairwise, which for tens
    of megabytes takes seconds.
    """
    if data[:2] != b"\xff\xd8":
        return None
    kept: list[bytes] = [data[:2]]
    orientation, scans, place, complete = 0, 0, 2, False
    while match := _NEXT_MARKER.search(data, place):
        marker, start = match.group(1)[0], match.end() - 2
        if marker == _EOI:
            kept.append(b"\xff\xd9")
            complete = True
            break
        size = int.from_bytes(data[start + 2 : start + 4], "big")
        end = start + 2 + max(size, 2)
        if marker == _SOS:
            scans += 1
            following = _NEXT_MARKER.search(data, end)
            end = following.start() if following else len(data)
        segment = data[start:end]
        if marker == _APP1 and not orientation and segment[4:10] == b"Exif\0\0":
            orientation = _exif_orientation(segment[10:])
        if not _is_metadata(marker, segment):
            kept.append(segment)
        place = end
    return JpegFile(b"".join(kept), orientation or 1, scans, complete)


def _is_metadata(marker: int, segment: bytes) -> bool:
    if marker == _APP0:
        return segment[4:9] != b"JFIF\0"  # else a thumbnail
    if marker == _APP14:
        return segment[4:9] != b"Adobe"
    return _APP0 < marker <= _APP15 or marker == _COM


def _exif_orientation(tiff: bytes) -> int:
    """Tag 0x0112 of the first directory; 0 if there is none or the block is damaged."""
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    try:
        if order is None:
            return 0
        (directory,) = struct.unpack_from(f"{order}I", tiff, 4)
        (entries,) = struct.unpack_from(f"{order}H", tiff, directory)
        for entry in range(entries):
            tag, kind, _, value = struct.unpack_from(f"{order}HHIH", tiff, directory + 2 + 12 * entry)
            if tag == _ORIENTATION and kind == 3 and 1 <= value <= 8:
                return value
    except struct.error:
        pass
    return 0
