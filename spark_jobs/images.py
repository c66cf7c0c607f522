"""From the bytes of a web image to the JPEG that is stored: checked, upright, RGB, small."""

from __future__ import annotations

import io
import struct
import warnings
import zlib

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from configs.schema import IngestConfig
from spark_jobs.captions import Problem
from spark_jobs.reasons import Reason

__all__ = ["Prepared", "prepare_image"]

# The formats that are decoded at all: every further parser is a further way in.
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
# We check the header against our own limit before anything is decoded.
Image.MAX_IMAGE_PIXELS = None
ImageFile.LOAD_TRUNCATED_IMAGES = False

Prepared = tuple[bytes, int, int]


def prepare_image(data: bytes | memoryview | None, config: IngestConfig) -> Prepared | Problem:
    """(JPEG, width, height) of a web image, or why it is rejected.

    EXIF orientation is applied; CMYK, 16-bit, palette, grey and alpha become 8-bit RGB (alpha on
    white); of an animation the first frame counts; the short side is scaled down to
    ``config.short_side``. A JPEG that is already all that stays as it is, byte for byte, unless it
    carries metadata. Reference for 16 bits: value / 257, as PNG defines the reduction.
    """
    if data is None:
        return Problem(Reason.MISSING_IMAGE)
    if len(data) == 0:
        return Problem(Reason.EMPTY_IMAGE)
    if len(data) > config.max_image_bytes:
        return Problem(Reason.IMAGE_TOO_BIG, f"{len(data)} bytes")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of odd metadata, which is dropped anyway
            with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
                width, height = image.size
                if width * height > config.max_pixels:
                    return Problem(Reason.TOO_MANY_PIXELS, f"{width} x {height}")
                if width < 1 or height < 1:
                    return Problem(Reason.UNREADABLE_IMAGE, f"{width} x {height}")
                return _prepare(image, bytes(data), config)
    except UnidentifiedImageError:
        return Problem(Reason.UNREADABLE_IMAGE, _looks_like(bytes(data[:64])))
    except (
        OSError,
        SyntaxError,
        ValueError,
        EOFError,
        IndexError,
        KeyError,
        struct.error,
        zlib.error,
    ) as error:
        text = str(error)
        cut = "truncated" in text or "unexpected end" in text.lower() or isinstance(error, EOFError)
        return Problem(
            Reason.TRUNCATED_IMAGE if cut else Reason.UNREADABLE_IMAGE,
            f"{type(error).__name__}: {text}"[:200],
        )
    except (
        MemoryError,
        OverflowError,
        TypeError,
        AttributeError,
        ZeroDivisionError,
        AssertionError,
        RuntimeError,
    ) as error:
        # What Pillow's parsers raise on crafted or damaged files.
        return Problem(Reason.UNREADABLE_IMAGE, f"{type(error).__name__}: {error}"[:200])


def _looks_like(head: bytes) -> str:
    start = head.lstrip().lower()
    return (
        "looks like HTML"
        if start.startswith((b"<!doctype", b"<html", b"<?xml", b"<head"))
        else f"begins with {head[:8]!r}"
    )


def _prepare(image: Image.Image, data: bytes, config: IngestConfig) -> Prepared | Problem:
    width, height = image.size
    orientation = image.getexif().get(0x0112, 1)
    small = min(width, height) <= config.short_side
    plain = image.format == "JPEG" and image.mode == "RGB" and orientation == 1 and not _has_metadata(image)
    if plain and small:
        image.load()  # finds truncation
        return data, width, height
    if image.format == "JPEG" and not small:
        # Scaled decoding: libjpeg leaves out the fine frequencies that the resize would drop anyway.
        image.draft(None, _scaled(width, height, 2 * config.short_side))
    colour = _to_rgb(image)
    if isinstance(colour, Problem):
        return colour
    if orientation in _TURNS:
        colour = colour.transpose(_TURNS[orientation])
    size = _scaled(*colour.size, config.short_side)
    if size != colour.size:
        colour = colour.resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0)
    buffer = io.BytesIO()
    colour.save(buffer, "JPEG", quality=config.jpeg_quality)
    return buffer.getvalue(), *colour.size


_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _has_metadata(image: Image.Image) -> bool:
    return any(name in image.info for name in ("exif", "icc_profile", "xmp", "photoshop", "comment"))


def _scaled(width: int, height: int, short_side: int) -> tuple[int, int]:
    """The size with this short side, never larger than it was, never below one pixel."""
    short = min(width, height)
    if short <= short_side:
        return width, height
    return max(1, round(width * short_side / short)), max(1, round(height * short_side / short))


def _to_rgb(image: Image.Image) -> Image.Image | Problem:
    mode = image.mode
    if mode == "RGB":
        image.load()
        return image
    if mode.startswith("I;16") or mode in ("I", "F"):
        # Pillow's own conversion of 16 and 32 bits cuts off instead of scaling.
        values = np.asarray(image, dtype=np.float64)
        if mode == "F" or (mode == "I" and (values.min() < 0 or values.max() > 65535)):
            return Problem(
                Reason.UNSUPPORTED_MODE, f"mode {mode} with values {values.min():g} to {values.max():g}"
            )
        grey = np.clip(values / 257.0 + 0.5, 0, 255).astype(np.uint8)
        return Image.fromarray(grey).convert("RGB")
    if mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        upper = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", upper.size, (255, 255, 255, 255)), upper).convert(
            "RGB"
        )
    if mode in ("1", "L", "P", "CMYK", "YCbCr", "RGBX", "LAB", "HSV"):
        return image.convert("RGB")  # Pillow inverts Adobe's CMYK when it decodes
    return Problem(Reason.UNSUPPORTED_MODE, f"mode {mode}")
