"""A PNG is judged by its pixels; what stands beside them may be as odd as it likes."""

from __future__ import annotations

import io
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from configs.schema import IngestConfig
from corpora.images import prepare_image
from corpora.png_chunks import strip_png
from tests.corpora.ingest_inputs import encode, picture, pixels

PLAIN = encode(picture(), "PNG")
TURNED = Image.Exif()
TURNED[0x0112] = 6


def _chunk(kind, data, right=True):
    check = zlib.crc32(kind + data) ^ (not right)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)


def _with(chunk, png=PLAIN):
    """The PNG with a chunk right after its header."""
    return png[:33] + chunk + png[33:]


ODD = {
    "wrong checksum": _chunk(b"tEXt", b"Comment\0a text", right=False),
    "short pHYs": _chunk(b"pHYs", b"\0\0\0\1"),
    "large text": _chunk(b"tEXt", b"Comment\0" + b"x" * 3_000_000),
    "text that unpacks to a hundred megabytes": _chunk(b"zTXt", b"C\0\0" + zlib.compress(bytes(100_000_000))),
    "profile that unpacks to a hundred megabytes": _chunk(
        b"iCCP", b"C\0\0" + zlib.compress(bytes(100_000_000))
    ),
    "damaged profile": _chunk(b"iCCP", b"sRGB\0\0not zlib"),
    "time of nothing": _chunk(b"tIME", b""),
    "damaged EXIF": _chunk(b"eXIf", os.urandom(40), right=False),
    "unknown": _chunk(b"quRk", b"?"),
}


@pytest.mark.parametrize("name", ODD)
def test_an_odd_side_chunk_costs_no_picture(name):
    result = prepare_image(_with(ODD[name]), IngestConfig())
    assert hasattr(result, "jpeg"), result
    np.testing.assert_array_equal(pixels(result.jpeg), pixels(prepare_image(PLAIN, IngestConfig()).jpeg))


def test_a_wrong_checksum_of_pixels_or_transparency_still_does():
    bad = bytearray(PLAIN)
    bad[PLAIN.index(b"IDAT") - 4 : PLAIN.index(b"IDAT")] = struct.pack(">I", 7)
    assert prepare_image(bytes(bad), IngestConfig()).reason in ("unreadable_image", "truncated_image")
    assert not hasattr(prepare_image(_with(_chunk(b"tRNS", bytes(6), right=False)), IngestConfig()), "jpeg")


@pytest.mark.parametrize("way", ["eXIf", "ImageMagick's text"])
def test_the_orientation_is_found_where_it_is_written(way):
    if way == "eXIf":
        data = encode(picture(), "PNG", exif=TURNED)
    else:
        raw = b"Exif\0\0" + TURNED.tobytes()[6:]
        info = PngImagePlugin.PngInfo()
        info.add_text("Raw profile type exif", f"\nexif\n{len(raw):8d}\n{raw.hex()}\n")
        data = encode(picture(), "PNG", pnginfo=info)
    assert Image.open(io.BytesIO(data)).getexif().get(0x0112) == 6
    result = prepare_image(data, IngestConfig())
    assert (result.width, result.height) == (64, 96)


@pytest.mark.parametrize("cut", [20, 40, 150, -60, -8, -1])
def test_what_is_cut_stays_cut(cut):
    assert strip_png(PLAIN[:cut])[-8:] == PLAIN[:cut][-8:]
    assert not hasattr(prepare_image(PLAIN[:cut], IngestConfig()), "jpeg") or cut in (-8, -1)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_pixels_are_the_same_without_side_chunks(mode):
    image = (
        Image.fromarray(np.arange(96 * 64, dtype=np.uint16).reshape(64, 96) * 10)
        if mode == "I;16"
        else picture().convert(mode)
    )
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", "x")
    data = encode(image, "PNG", pnginfo=info, dpi=(300, 300), **({"transparency": 1} if mode == "P" else {}))
    stripped = strip_png(data)
    assert b"Comment" in data
    assert b"Comment" not in stripped
    before, after = Image.open(io.BytesIO(data)), Image.open(io.BytesIO(stripped))
    assert before.mode == after.mode
    np.testing.assert_array_equal(np.asarray(before.convert("RGBA")), np.asarray(after.convert("RGBA")))
