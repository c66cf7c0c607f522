"""What all shard readers give: samples, as found and under names that are safe in keys."""

from __future__ import annotations

import hashlib
import json
import urllib.parse
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from corpora.captions import Problem
from corpora.reasons import Reason

__all__ = [
    "CAPTIONS",
    "IMAGES",
    "MOST_JSON_BYTES",
    "LazyImage",
    "Sample",
    "assemble",
    "sample_name",
    "split_member_name",
    "too_big",
]

IMAGES = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff")
"""Suffixes of images; if a sample has several, the first of these counts."""
CAPTIONS = ("txt", "text", "caption")
"""Suffixes of captions: img2dataset's, and `text`, as GroupViT's and CoCu's converters write."""
MOST_JSON_BYTES = 8 << 20
_LONGEST_NAME = 160

LazyImage = Callable[[], "bytes | Problem"]


@dataclass
class Sample:
    """One image-caption pair as found; or what is wrong with it (or with the shard, then ``name`` is "").

    ``image`` is the file's bytes, or a function that reads them: readers of single files leave the waiting
    for a far-away store to the decoding threads.
    """

    name: str
    image: bytes | LazyImage | None = None
    caption: bytes | str | None = None
    problem: Problem | None = None


def sample_name(text: str) -> str:
    """A sample's name for its key: unique if the original was, short, without slashes and odd characters."""
    name = urllib.parse.quote(text, safe="-_.,=+@()~", errors="surrogateescape")
    if len(name) > _LONGEST_NAME:
        digest = hashlib.sha256(name.encode()).hexdigest()[:12]
        name = f"{name[: _LONGEST_NAME - 13]}~{digest}"
    return name


def split_member_name(path: str) -> tuple[str, str]:
    """webdataset's rule: the sample's name ends at the first dot of the base name, the rest is the suffix."""
    folder, slash, base = path.rpartition("/")
    stem, _, suffix = base.partition(".")
    return (f"{folder.lstrip('./')}{slash}{stem}".lstrip("/") if stem else ""), suffix.lower()


def too_big(size: int) -> Problem:
    """The problem of an image file above the limit."""
    return Problem(Reason.IMAGE_TOO_BIG, f"{size} bytes")


def assemble(name: str, parts: Mapping[str, bytes | LazyImage | Problem]) -> Sample:
    """A sample from its members by suffix: an image, and a caption of its own or in the JSON."""
    image = next((parts[suffix] for suffix in IMAGES if suffix in parts), None)
    caption = next((parts[suffix] for suffix in CAPTIONS if suffix in parts), None)
    if caption is None and "json" in parts:
        caption = _caption_of_json(parts["json"])
    for part in (image, caption):
        if isinstance(part, Problem):
            return Sample(sample_name(name), problem=part)
    return Sample(sample_name(name), image, caption)  # type: ignore[arg-type]


def _caption_of_json(data: object) -> str | Problem | None:
    if not isinstance(data, bytes):
        return data if isinstance(data, Problem) else None
    try:
        values = json.loads(data)
    except UnicodeDecodeError:
        return Problem(Reason.CAPTION_NOT_UTF8, "in the JSON")
    except (ValueError, RecursionError) as error:
        return Problem(Reason.MISSING_CAPTION, f"the JSON is damaged: {error}"[:200])
    caption = values.get("caption") if isinstance(values, dict) else None
    return caption if isinstance(caption, str) else None
