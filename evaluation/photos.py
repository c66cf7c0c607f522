"""Photos as people have them -> upright 8-bit RGB: turned by EXIF, grey, transparent, of 16 bits."""

from __future__ import annotations

import glob
import struct
import warnings
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile, ImageOps

from configs.errors import UserError

__all__ = ["FORMATS", "MAX_PIXELS", "PICTURE_ERRORS", "SUFFIXES", "find_pictures", "read_picture"]

SUFFIXES = frozenset(".jpg .jpeg .png .webp .gif .bmp .tif .tiff".split())
"""Of the formats that are read."""
MAX_PIXELS = 150_000_000
"""Larger pictures are refused on their header, before anything is decoded (Pillow's own limit is a little above)."""
PICTURE_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    LookupError,
    struct.error,
    zlib.error,
    MemoryError,
    TypeError,
    AttributeError,
    Image.DecompressionBombError,
)
"""What Pillow raises on damaged and crafted files."""

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")  # every further parser is a further way in
ImageFile.LOAD_TRUNCATED_IMAGES = False
warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our limit decides


def find_pictures(arguments: Sequence[str]) -> list[Path]:
    """Files, folders (what is in them, not deeper) and patterns (``**`` goes deeper) -> files, each once.

    Raises:
        UserError: an argument that stands for nothing.
    """
    found: dict[Path, None] = {}
    for argument in arguments:
        path = Path(argument)
        if path.is_dir():
            matches = sorted(
                file for file in path.iterdir() if file.suffix.lower() in SUFFIXES and file.is_file()
            )
        elif path.exists():
            matches = [path]
        else:
            paths = map(Path, glob.glob(argument, recursive=True))  # noqa: PTH207 (Path.glob wants a start)
            matches = sorted(file for file in paths if file.is_file())
        if not matches:
            what = (
                "no picture (jpg, png, webp, gif, bmp, tiff) in this folder"
                if path.is_dir()
                else "no such file"
            )
            raise UserError(
                f"{argument}: {what}; name photos, folders or quoted patterns like 'photos/*.jpg'"
            )
        found.update(dict.fromkeys(matches))
    return list(found)


def read_picture(path: str | Path, max_pixels: int = MAX_PIXELS, short_side: int | None = None) -> np.ndarray:
    """uint8 (H, W, 3) RGB, upright; transparency on white, 16-bit grey scaled to 8.

    A caller that makes the picture smaller anyway says the ``short_side`` it wants: a large JPEG is then decoded at a
    half, a quarter or an eighth of its size, its short side still twice that long, in a fraction of the time.

    Raises:
        UserError: it cannot be read, in words, the file named.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise UserError(
                    f"{path}: {width} x {height} pixels are more than {max_pixels:,}; make it smaller"
                )
            if short_side is not None:
                scale = 2 * short_side / min(width, height)
                image.draft(None, (round(width * scale), round(height * scale)))
            image.load()
            return np.asarray(_to_rgb(_upright(image), path))
    except PICTURE_ERRORS as error:
        text = " ".join(str(error).split())[:120] or type(error).__name__
        raise UserError(f"{path}: cannot be read as a picture: {text}") from None


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except PICTURE_ERRORS:
        return image  # damaged EXIF is no reason to lose the photo


def _to_rgb(image: Image.Image, path: str | Path) -> Image.Image:
    if image.mode.startswith("I;16"):
        return Image.fromarray(np.round(np.asarray(image) / 257).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise UserError(f"{path}: its pixels are of 32 bits (mode {image.mode}); save it with 8 or 16")
    if image.has_transparency_data:
        upper = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", upper.size, "white"), upper).convert("RGB")
    return image.convert("RGB")
