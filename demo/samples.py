"""The samples of the demo's shards: ordinary pairs, valid ones in odd formats, and broken ones with their reason."""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image

from demo.world.captions import write_caption
from demo.world.scenes import Scene, make_scene

__all__ = ["BROKEN_KINDS", "ODD_KINDS", "PAIR_STREAM", "Sample", "make_sample"]

PAIR_STREAM, EVALUATION_STREAM, CAPTION_STREAM = 1, 2, 3
"""Second part of every scene's seed: pairs, evaluation scenes and captions never share one."""

ODD_KINDS: tuple[str, ...] = (
    "cmyk",
    "grey",
    "sixteen_bit",
    "palette",
    "alpha",
    "exif_turned",
    "animated",
    "webp",
)
"""Valid samples in formats that a reader must bring to plain RGB; their truth holds."""

BROKEN_KINDS: dict[str, str] = {
    "cut_jpeg": "truncated_image",
    "html": "unreadable_image",
    "bomb": "too_many_pixels",
    "no_caption": "missing_caption",
    "empty_caption": "short_caption",
    "short_caption": "short_caption",
    "latin1_caption": "caption_not_utf8",
}
"""Kind of damage -> the reason a reader should give."""

_HTML = (
    b"<!DOCTYPE html><html><head><title>404 Not Found</title></head><body>The image has moved.</body></html>"
)


@dataclass(frozen=True)
class Sample:
    """What goes into a tar: ``image`` bytes, ``caption`` bytes (None: no .txt member), and the truth."""

    image: bytes
    caption: bytes | None
    scene: Scene
    named: list[str]


def _jpeg(image: np.ndarray) -> bytes:
    return cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])[1].tobytes()


def _saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _odd_image(kind: str, image: np.ndarray) -> bytes:
    picture = Image.fromarray(image)
    if kind == "cmyk":
        return _saved(picture.convert("CMYK"), "JPEG", quality=95)
    if kind == "grey":
        return _saved(picture.convert("L"), "JPEG", quality=92)
    if kind == "sixteen_bit":
        grey = np.asarray(picture.convert("L")).astype(np.uint16) * 257
        return cv2.imencode(".png", grey)[1].tobytes()
    if kind == "palette":
        return _saved(picture.quantize(128), "PNG")
    if kind == "alpha":
        alpha = np.broadcast_to(np.linspace(215, 255, image.shape[1]).astype(np.uint8), image.shape[:2])
        return _saved(Image.fromarray(np.dstack([image, alpha])), "PNG")
    if kind == "exif_turned":
        exif = Image.Exif()
        exif[0x0112] = 6
        return _saved(picture.transpose(Image.Transpose.ROTATE_90), "JPEG", quality=92, exif=exif)
    if kind == "animated":
        later = Image.fromarray(image[:, ::-1].copy())
        return _saved(picture, "GIF", save_all=True, append_images=[later], duration=200)
    if kind == "webp":
        return _saved(picture, "WEBP", quality=92)
    raise ValueError(f"no odd kind {kind!r}")


def _bomb() -> bytes:
    """A PNG of a few bytes that declares 60,000 x 60,000 pixels."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(64))) + chunk(b"IEND", b"")


def make_sample(seed: int, number: int, kind: str) -> Sample:
    """Sample ``number`` of the stream of ``seed``; ``kind`` is "plain" or one of the odd or broken kinds."""
    scene = make_scene((seed, PAIR_STREAM, number))
    text, named = write_caption(scene, np.random.default_rng((seed, CAPTION_STREAM, number)))
    caption: bytes | None = text.encode()
    image = _odd_image(kind, scene.image) if kind in ODD_KINDS else _jpeg(scene.image)
    if kind == "cut_jpeg":
        image = image[: len(image) * 2 // 5]
    elif kind == "html":
        image = _HTML
    elif kind == "bomb":
        image = _bomb()
    elif kind == "no_caption":
        caption = None
    elif kind == "empty_caption":
        caption = b""
    elif kind == "short_caption":
        caption = b"x"
    elif kind == "latin1_caption":
        caption = "a caf\xe9 near ".encode("latin-1") + text.encode()
    return Sample(image, caption, scene, named)
