"""Stored pixels, compared with an independent computation from the original file."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from configs.schema import IngestConfig
from corpora.images import prepare_image
from corpora.jpeg_segments import strip_jpeg
from tests.corpora.ingest_inputs import encode, jpeg, picture, pixels

SHORT = 48
WIDE, HIGH = 300, 200


def _reference(rgb: np.ndarray | Image.Image, short_side: int) -> np.ndarray:
    """Upright 8-bit RGB scaled to the short side by averaging areas: another way than the code's."""
    image = Image.fromarray(rgb) if isinstance(rgb, np.ndarray) else rgb
    scale = min(1.0, short_side / min(image.size))
    size = tuple(max(1, round(side * scale)) for side in image.size)
    return np.asarray(image.resize(size, Image.Resampling.LANCZOS)).astype(np.int16)


def _assert_close(data: bytes, rgb: np.ndarray | Image.Image, short_side: int = SHORT, mean=3.0, most=40):
    result = prepare_image(data, IngestConfig(short_side=short_side))
    assert hasattr(result, "jpeg"), result
    found, expected = pixels(result.jpeg), _reference(rgb, short_side)
    assert found.shape == expected.shape
    assert (result.height, result.width) == found.shape[:2]
    difference = np.abs(found - expected)
    assert difference.mean() < mean
    assert np.quantile(difference, 0.99) < most
    return found


RGB = picture(WIDE, HIGH)
GREY16 = (np.linspace(0, 65535, WIDE)[None, :] * np.linspace(0.2, 1, HIGH)[:, None]).astype(np.uint16)
GREY = np.round(GREY16 / 257).astype(np.uint8)


def _grey_as_rgb(grey: np.ndarray) -> np.ndarray:
    return np.repeat(grey[:, :, None], 3, axis=2)


def _mask() -> np.ndarray:
    y, x = np.mgrid[0:HIGH, 0:WIDE]
    return np.where((x - 150) ** 2 + (y - 100) ** 2 < 80**2, 255, 0).astype(np.uint8)


def _on_white(rgb: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    share = alpha[:, :, None] / 255
    return np.round(rgb * share + 255 * (1 - share)).astype(np.uint8)


def _palette_with_transparency() -> tuple[bytes, np.ndarray]:
    indices = (np.mgrid[0:HIGH, 0:WIDE][1] // 75).astype(np.uint8)  # four bars
    colours = np.array([[250, 10, 10], [10, 250, 10], [10, 10, 250], [90, 90, 90]], np.uint8)
    image = Image.fromarray(indices, "P")
    image.putpalette(colours.tobytes())
    data = encode(image, "PNG", transparency=2)
    colours[2] = 255
    return data, colours[indices]


def _cases() -> dict[str, tuple[bytes, np.ndarray | Image.Image]]:
    cmyk = RGB.convert("CMYK")
    rgba = RGB.copy()
    rgba.putalpha(Image.fromarray(_mask()))
    half = RGB.copy()
    half.putalpha(128)
    la = Image.merge("LA", (Image.fromarray(GREY), Image.fromarray(_mask())))
    bits = Image.fromarray(_mask()).convert("1")
    palette, bars = _palette_with_transparency()
    array = np.asarray(RGB)
    return {
        "jpeg": (encode(RGB), RGB),
        "progressive jpeg": (encode(RGB, progressive=True), RGB),
        "jpeg 4:4:4": (encode(RGB, subsampling=0), RGB),
        "grey jpeg": (encode(Image.fromarray(GREY)), _grey_as_rgb(GREY)),
        "cmyk jpeg": (encode(cmyk), cmyk.convert("RGB")),
        "cmyk tiff": (encode(cmyk, "TIFF"), cmyk.convert("RGB")),
        "16-bit png": (encode(Image.fromarray(GREY16), "PNG"), _grey_as_rgb(GREY)),
        "16-bit tiff": (encode(Image.fromarray(GREY16), "TIFF"), _grey_as_rgb(GREY)),
        "palette png": (encode(RGB.quantize(200), "PNG"), RGB.quantize(200).convert("RGB")),
        "palette png with a transparent colour": (palette, bars),
        "alpha png": (encode(rgba, "PNG"), _on_white(array, _mask())),
        "half transparent webp": (
            encode(half, "WEBP", lossless=True),
            _on_white(array, np.full((HIGH, WIDE), 128)),
        ),
        "grey with alpha": (encode(la, "PNG"), _on_white(_grey_as_rgb(GREY), _mask())),
        "one bit": (encode(bits, "PNG"), _grey_as_rgb(_mask())),
        "bmp": (encode(RGB, "BMP"), RGB),
        "webp": (encode(RGB, "WEBP", quality=95), RGB),
        "tiff": (encode(RGB, "TIFF", compression="tiff_lzw"), RGB),
    }


CASES = _cases()


@pytest.mark.parametrize("name", CASES)
def test_pixels_come_out_right(name):
    _assert_close(*CASES[name])


@pytest.mark.parametrize("name", CASES)
def test_and_right_where_nothing_is_scaled(name):
    data, rgb = CASES[name]
    _assert_close(data, rgb, short_side=HIGH, most=60)


def _png16(samples: np.ndarray, colour: int) -> bytes:
    """A 16-bit PNG, which Pillow cannot write: colour type 2 is RGB, 4 grey with alpha, 6 RGB with alpha."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in samples)
    head = struct.pack(">IIBBBBB", samples.shape[1], samples.shape[0], 16, colour, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def test_sixteen_bit_colours_and_alpha():
    rgb16 = np.asarray(RGB).astype(np.uint16) * 257
    alpha16 = _mask().astype(np.uint16)[:, :, None] * 257
    _assert_close(_png16(rgb16, 2), RGB)
    _assert_close(_png16(np.concatenate([rgb16, alpha16], axis=2), 6), _on_white(np.asarray(RGB), _mask()))
    grey = np.concatenate([GREY16[:, :, None], alpha16], axis=2)
    _assert_close(_png16(grey, 4), _on_white(_grey_as_rgb(GREY), _mask()))


def test_sixteen_bits_with_zero_as_white():
    tiff = bytearray(encode(Image.fromarray(GREY16), "TIFF"))
    with Image.open(io.BytesIO(bytes(tiff))) as image:
        assert image.tag_v2[262] == 1
    # The tag's entry: number 262 (little endian), type short, one value: 1 -> 0, which is white at zero.
    place = tiff.index(b"\x06\x01\x03\x00\x01\x00\x00\x00\x01\x00")
    tiff[place + 8] = 0
    _assert_close(bytes(tiff), _grey_as_rgb(255 - GREY))


def test_hidden_colours_do_not_bleed_from_under_transparency():
    array = np.full((HIGH, WIDE, 4), 255, np.uint8)
    array[:, :, :3] = (255, 0, 0)  # red, invisible ...
    array[:, :, 3] = 0
    array[_mask() > 0] = (0, 0, 255, 255)  # ... around a blue disc
    found = _assert_close(
        encode(Image.fromarray(array, "RGBA"), "PNG"), _on_white(array[:, :, :3], array[:, :, 3]), most=60
    )
    red, blue = found[:, :, 0], found[:, :, 2]
    assert (red <= blue + 40).all()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("turn", range(1, 9))
def test_exif_turns(kind, turn):
    exif = Image.Exif()
    exif[0x0112] = turn
    data = encode(RGB, kind, exif=exif)
    with Image.open(io.BytesIO(data)) as image:
        upright = ImageOps.exif_transpose(image).convert("RGB")
    _assert_close(data, upright)
    assert (upright.width > upright.height) == (turn < 5)


def test_small_turned_jpegs_are_turned_too():
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encode(picture(40, 30), exif=exif)
    result = prepare_image(data, IngestConfig())
    assert (result.width, result.height) == (30, 40)


def test_the_first_orientation_counts_and_damaged_exif_is_ignored():
    exif = Image.Exif()
    exif[0x0112] = 3
    turned = encode(picture(), exif=exif)
    assert strip_jpeg(turned).orientation == 3
    place = turned.index(b"Exif\0\0") + 6
    damaged = turned[: place + 4] + b"\xff\xff\xff\x7f" + turned[place + 8 :]
    assert strip_jpeg(damaged).orientation == 1
    assert np.array_equal(pixels(prepare_image(damaged, IngestConfig()).jpeg), pixels(jpeg()))


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_animations_the_first_frame_counts(kind):
    frames = [
        picture(WIDE, HIGH),
        Image.new("RGB", (WIDE, HIGH), "black"),
        Image.new("RGB", (WIDE, HIGH), "red"),
    ]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encode(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    with Image.open(io.BytesIO(data)) as image:
        assert image.n_frames == 3
        first = image.convert("RGB")
    _assert_close(data, first)


def test_sizes_are_scaled_down_never_up_and_stay_whole():
    config = IngestConfig(short_side=256)
    for width, height, expected in [
        (512, 512, (256, 256)),
        (1000, 400, (640, 256)),
        (400, 1000, (256, 640)),
        (100, 80, (100, 80)),
        (256, 4000, (256, 4000)),
        (9000, 8, (9000, 8)),
        (70_000, 2, (65_500, 2)),
    ]:
        result = prepare_image(encode(Image.new("RGB", (width, height), "green"), "PNG"), config)
        assert (result.width, result.height) == expected


def test_a_jpeg_without_its_end_mark_counts_if_all_of_it_is_there():
    data = jpeg()
    result = prepare_image(data[:-2] + bytes(64), IngestConfig())
    assert result.jpeg.endswith(b"\xff\xd9")
    assert np.array_equal(pixels(result.jpeg), pixels(data))
    # Where nothing follows the decoder cannot tell whether something is missing.
    assert prepare_image(data[:-2], IngestConfig()).reason == "truncated_image"


def test_what_follows_a_jpeg_is_dropped():
    data = jpeg()
    assert prepare_image(data + b"<script>alert(1)</script>" * 100, IngestConfig()).jpeg == data


def test_several_pictures_in_one_jpeg_count_as_the_first():
    frames = [picture(), Image.new("RGB", (96, 64), "black")]
    data = encode(frames[0], "MPO", save_all=True, append_images=frames[1:], quality=95)
    with Image.open(io.BytesIO(data)) as image:
        assert image.format == "MPO"
    result = prepare_image(data, IngestConfig())
    assert np.array_equal(pixels(result.jpeg), np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


def test_thumbnails_in_the_metadata_are_not_taken_for_the_picture():
    exif = Image.Exif()
    exif[0x0112] = 6
    thumbnail = encode(Image.new("RGB", (16, 16), "black"))
    exif.get_ifd(0x8769)[0x927C] = b"\xff\xd9" + thumbnail  # an end mark and a JPEG inside of EXIF
    data = encode(picture(WIDE, HIGH), exif=exif)
    with Image.open(io.BytesIO(data)) as image:
        _assert_close(data, ImageOps.exif_transpose(image))
