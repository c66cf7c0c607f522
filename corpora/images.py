"""From the bytes of a web image to the JPEG that is stored: checked, upright, RGB, small.

Decoder: Pillow. It knows every format that occurs and refuses what is truncated. OpenCV is 1.4 times as fast
(tests/benchmarks/bench_ingest.py), but fills up with grey what is missing, and says nothing.
Colour profiles are ignored, as they are by the pipelines that CLIP models were trained with.
"""

from __future__ import annotations

import io
import struct
import threading
import warnings
import zlib
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from configs.schema import IngestConfig
from corpora.captions import Problem
from corpora.decode_pool import Clock
from corpora.jpeg_segments import JpegFile, strip_jpeg
from corpora.png_chunks import strip_png
from corpora.reasons import Reason

__all__ = ["MIN_PIXELS", "Prepared", "prepare_image"]

MIN_PIXELS = 64
"""Smaller images are placeholders (1x1) and are rejected."""
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")  # every further parser is a further way in
_LONGEST_SIDE = 65_500  # of a JPEG
_MOST_SCANS = 64  # a progressive JPEG has about ten; each costs a pass over all pixels, however few its bytes
_LARGE = 16_000_000  # pixels; of images that decode to more, one at a time
_large_image = threading.Semaphore(1)
_KEEP_AS_RGB = frozenset(("1", "L", "P", "CMYK", "YCbCr", "RGBX", "HSV", "RGB"))
_ALPHA = frozenset(("RGBA", "LA", "PA", "RGBa", "La"))
_TO_8_BITS = np.round(np.arange(65536) / 257).astype(np.uint8)
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

ImageFile.LOAD_TRUNCATED_IMAGES = False
# Our own limit is checked on the header; Pillow warns of odd metadata, which is dropped.
warnings.simplefilter("ignore", Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", module=r"PIL\.")


class Prepared(NamedTuple):
    """A JPEG without metadata, upright, RGB, and its size in pixels."""

    jpeg: bytes
    width: int
    height: int


class _Source(io.BytesIO):
    """The image's bytes; decoders read them in blocks, so that the time is looked at in between."""

    def __init__(self, data: bytes, clock: Clock) -> None:
        super().__init__(data)
        self._clock = clock

    def read(self, size: int | None = -1, /) -> bytes:
        self._clock.check()
        return super().read(size)


def prepare_image(data: bytes | None, config: IngestConfig, clock: Clock | None = None) -> Prepared | Problem:
    """The JPEG to store, or why the image is rejected; never raises on data.

    EXIF orientation is applied; CMYK, 16-bit, palette, grey and alpha become 8-bit RGB (alpha on
    white; 16 bits by value / 257, as PNG defines it); of an animation the first frame counts; the short
    side is scaled down to ``config.short_side``, aspect kept. A JPEG that is already all that is kept byte
    for byte, less its metadata.

    Time: bounded by ``config.max_pixels`` and checked against ``clock`` between the steps.
    Memory: at most 17 bytes a pixel; of images above 16 megapixels, one is decoded at a time.
    """
    if clock is None:
        clock = Clock(config.image_seconds)
        clock.start()
    if data is None:
        return Problem(Reason.MISSING_IMAGE)
    if not data:
        return Problem(Reason.EMPTY_IMAGE)
    if len(data) > config.max_image_bytes:
        return Problem(Reason.IMAGE_TOO_BIG, f"{len(data)} bytes")
    jpeg = strip_jpeg(data)
    if jpeg is not None and jpeg.scans > _MOST_SCANS:
        return Problem(Reason.UNREADABLE_IMAGE, f"a JPEG of {jpeg.scans} scans")
    source = jpeg.data if jpeg is not None else strip_png(data) or data
    if Image.MAX_IMAGE_PIXELS is not None and config.max_pixels > Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = config.max_pixels
    try:
        with Image.open(_Source(source, clock), formats=_FORMATS) as image:
            return _check_size(image, config) or _prepare(image, jpeg, config, clock)
    except TimeoutError as error:
        return Problem(Reason.IMAGE_TIMEOUT, str(error))
    except Image.DecompressionBombError as error:
        return Problem(Reason.TOO_MANY_PIXELS, str(error)[:100])
    except UnidentifiedImageError:
        reason = Reason.TRUNCATED_IMAGE if _is_cut(data, jpeg) else Reason.UNREADABLE_IMAGE
        return Problem(reason, _looks_like(data))
    except _DECODER_ERRORS as error:
        cut = _is_cut(data, jpeg) or "truncated" in str(error).lower()
        reason = Reason.TRUNCATED_IMAGE if cut else Reason.UNREADABLE_IMAGE
        return Problem(reason, f"{type(error).__name__}: {error}"[:200])


# What Pillow's parsers raise on damaged and crafted files.
_DECODER_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    LookupError,
    struct.error,
    zlib.error,
    MemoryError,
    ArithmeticError,
    TypeError,
    AttributeError,
    AssertionError,
    RuntimeError,
)


def _check_size(image: Image.Image, config: IngestConfig) -> Problem | None:
    """From the header: nothing has been decoded yet."""
    width, height = image.size
    if width * height > config.max_pixels:
        return Problem(Reason.TOO_MANY_PIXELS, f"{width} x {height}")
    if width * height < MIN_PIXELS:
        return Problem(Reason.TOO_FEW_PIXELS, f"{width} x {height}")
    return None


def _is_cut(data: bytes, jpeg: JpegFile | None) -> bool:
    """Whether a format that says where it ends does not end."""
    if jpeg is not None:
        return not jpeg.complete
    if data[:4] == b"RIFF":
        return int.from_bytes(data[4:8], "little") + 8 > len(data)
    if data[:4] == b"\x89PNG":
        return b"IEND" not in data[-4096:]
    return data[:4] == b"GIF8" and b";" not in data[-64:]


def _looks_like(data: bytes) -> str:
    head = data[:512].lstrip().lower()
    web_page = head.startswith((b"<!doctype", b"<html", b"<head", b"<?xml", b"<body", b"<script"))
    return "looks like HTML or XML" if web_page else f"begins with {data[:8]!r}"


def _prepare(
    image: Image.Image, jpeg: JpegFile | None, config: IngestConfig, clock: Clock
) -> Prepared | Problem:
    width, height = image.size
    target = _target_size(width, height, config.short_side)
    if jpeg is not None and image.mode == "RGB" and jpeg.orientation == 1 and target == image.size:
        image.load()  # finds truncation
        return Prepared(jpeg.data if jpeg.complete else jpeg.data + b"\xff\xd9", width, height)
    if jpeg is not None and target != image.size:
        # Scaled decoding: libjpeg leaves out the fine frequencies that the resize would drop anyway.
        image.draft(None, (2 * target[0], 2 * target[1]))
    large = image.width * image.height > _LARGE
    if large:
        clock.pause()
        large = _large_image.acquire(timeout=config.image_seconds)
        clock.start()
    try:
        small = _decode(image, target, clock)
    finally:
        if large:
            _large_image.release()
    if isinstance(small, Problem):
        return small
    orientation = jpeg.orientation if jpeg is not None else _orientation(image)
    if orientation in _TURNS:
        small = small.transpose(_TURNS[orientation])
    clock.check()
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=config.jpeg_quality, exif=b"", icc_profile=None, comment=b"")
    return Prepared(buffer.getvalue(), *small.size)


def _orientation(image: Image.Image) -> int:
    """Asked after decoding: Pillow turns TIFF by itself, then forgets the tag."""
    try:
        return int(image.getexif().get(0x0112, 1))
    except _DECODER_ERRORS:
        return 1  # damaged EXIF is no reason to lose the picture


def _target_size(width: int, height: int, short_side: int) -> tuple[int, int]:
    """Scaled down to the short side (and what a JPEG can hold), never up, never below one pixel."""
    scale = min(1.0, short_side / min(width, height), _LONGEST_SIDE / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def _decode(image: Image.Image, target: tuple[int, int], clock: Clock) -> Image.Image | Problem:
    """8-bit RGB of the target size (turned by 90 degrees where Pillow has turned the image)."""
    whole = image.size
    image.load()
    clock.check()
    if image.size != whole:
        target = target[::-1]
    mode = image.mode
    if mode.startswith("I;16"):
        return _resize(_from_16_bits(image).convert("RGB"), target)
    if mode in _ALPHA or "transparency" in image.info:
        # Resized while transparent (Pillow weighs by alpha), so that no hidden colour shows at edges.
        whole_image = image if mode in ("RGBA", "LA") else image.convert("RGBA")
        upper = _resize(whole_image, target).convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", upper.size, "white"), upper).convert("RGB")
    if mode in _KEEP_AS_RGB:
        return _resize(image if mode == "RGB" else image.convert("RGB"), target)
    return Problem(Reason.UNSUPPORTED_MODE, f"mode {mode}")


def _resize(image: Image.Image, target: tuple[int, int]) -> Image.Image:
    if image.size == target:
        return image
    return image.resize(target, Image.Resampling.BICUBIC, reducing_gap=2.0)


def _from_16_bits(image: Image.Image) -> Image.Image:
    """Grey of 16 bits to 8; Pillow's own conversion cuts off at 255 instead of scaling."""
    grey = _TO_8_BITS[np.asarray(image)]
    tags = getattr(image, "tag_v2", {})
    return Image.fromarray(255 - grey if tags.get(262) == 0 else grey)  # TIFF: zero may be white
