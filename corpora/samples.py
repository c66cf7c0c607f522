"""What all shard readers give: samples, as found and under names that are safe in keys."""

from __future__ import annotations

import hashlib
import json
import posixpath
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from configs.schema import CorpusConfig
from corpora.captions import Problem
from corpora.reasons import Reason

__all__ = [
    "CAPTIONS",
    "IMAGES",
    "MOST_JSON_BYTES",
    "LazyBytes",
    "Part",
    "Sample",
    "Suffixes",
    "as_text",
    "assemble",
    "file_stem",
    "sample_name",
    "too_big",
]

IMAGES = ("jpg", "jpeg", "jpe", "jfif", "png", "webp", "gif", "bmp", "tif", "tiff")
"""Suffixes of images; if a sample has several, the first of these counts."""
CAPTIONS = ("txt", "text", "caption")
"""Suffixes of captions: img2dataset's, and `text`, as GroupViT's and CoCu's converters write."""
MOST_JSON_BYTES = 8 << 20
_LONGEST_NAME = 160
_LONGEST_COLUMN = 1 << 16

LazyBytes = Callable[[], "bytes | Problem"]
Part = bytes | Problem | LazyBytes
"""The content of a file: read, to be read where it is needed, or what is wrong with it."""


@dataclass
class Sample:
    """One image-caption pair as found; or what is wrong with it (or with the shard, then ``name`` is "").

    ``image`` is the file's bytes, or a function that reads them: readers of single files leave the waiting
    for a far-away store to the decoding threads.
    """

    name: str
    image: bytes | LazyBytes | None = None
    caption: bytes | str | None = None
    problem: Problem | None = None
    columns: Mapping[str, str | None] = field(default_factory=dict)
    """further columns, those of ``ingest.columns`` that there are"""


@dataclass(frozen=True)
class Suffixes:
    """Which of a sample's files is what. The JSON's captions stand under ``json_key``."""

    images: tuple[str, ...] = IMAGES
    captions: tuple[str, ...] = CAPTIONS
    json_key: str = "caption"
    chosen: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    """keys of the JSON that go along"""

    @classmethod
    def of(cls, options: CorpusConfig, columns: Sequence[str] = ()) -> Suffixes:
        """The corpus' ``image_column`` and ``caption_column``, where set, go before the usual ones."""
        usual = CorpusConfig()
        image = () if options.image_column == usual.image_column else (options.image_column.lower(),)
        caption = () if options.caption_column == usual.caption_column else (options.caption_column.lower(),)
        return cls(
            (*image, *IMAGES),
            (*caption, *CAPTIONS),
            options.caption_column,
            (*image, *caption),
            tuple(columns),
        )

    @property
    def known(self) -> tuple[str, ...]:
        """All that matter."""
        return (*self.images, *self.captions, "json")


def sample_name(text: str) -> str:
    """A sample's name for its key: unique if the original was, short, without slashes and odd characters."""
    name = urllib.parse.quote(text, safe="-_.,=+@()~", errors="surrogateescape")
    if len(name) > _LONGEST_NAME:
        digest = hashlib.sha256(name.encode()).hexdigest()[:12]
        name = f"{name[: _LONGEST_NAME - 13]}~{digest}"
    return name


def file_stem(file: str) -> str:
    """An image's name without folders and its suffix, if it has one: names may hold dots."""
    base = posixpath.basename(file)
    stem, suffix = posixpath.splitext(base)
    return stem if suffix[1:].lower() in IMAGES else base


def too_big(size: int) -> Problem:
    """The problem of an image file above the limit."""
    return Problem(Reason.IMAGE_TOO_BIG, f"{size} bytes")


def assemble(name: str, parts: Mapping[str, Part], others: Sequence[str], suffixes: Suffixes) -> Sample:
    """A sample from its files by suffix: an image, and a caption of its own or in the JSON.

    ``others`` are the suffixes of its further files, for the sentence on what is missing.
    """
    found = ", ".join(f".{suffix}" if suffix else "no suffix" for suffix in (*parts, *others))
    image = next((parts[suffix] for suffix in suffixes.images if suffix in parts), None)
    if image is None:
        text = f"its files end in {found}; images in {', '.join(suffixes.images)}"
        return Sample(sample_name(name), problem=Problem(Reason.MISSING_IMAGE, text))
    caption = _caption(parts, suffixes)
    if caption is None:
        text = f"its files end in {found}; captions in {', '.join(suffixes.captions)} or json"
        caption = Problem(Reason.MISSING_CAPTION, text)
    for part in (image, caption):
        if isinstance(part, Problem):
            return Sample(sample_name(name), problem=part)
    columns = (
        _columns_of_json(_content(parts["json"]), suffixes.columns)
        if suffixes.columns and "json" in parts
        else {}
    )
    return Sample(sample_name(name), image, caption, columns=columns)  # type: ignore[arg-type]


def as_text(value: Any) -> str | None:
    """A value of a further column as text: what is none becomes JSON; cut to 64 Ki characters."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if value is not None and not isinstance(value, str):
        value = json.dumps(value, default=str)
    # (Lone surrogates, which JSON can spell and UTF-8 cannot hold, become question marks.)
    return None if value is None else value[:_LONGEST_COLUMN].encode("utf-8", "replace").decode()


def _columns_of_json(data: bytes | Problem, columns: Sequence[str]) -> dict[str, str | None]:
    try:
        values = {} if isinstance(data, Problem) else json.loads(data)
    except (ValueError, RecursionError):
        return {}  # a caption may stand elsewhere: no reason to lose the pair
    return {name: as_text(values.get(name)) for name in columns} if isinstance(values, dict) else {}


def _caption(parts: Mapping[str, Part], suffixes: Suffixes) -> bytes | str | Problem | None:
    """The file that the corpus' options name; else the JSON's key that they name; else the usual files."""
    order = [suffix for suffix in suffixes.captions if suffix in parts]
    if "json" in parts and not (order and (order[0] in suffixes.chosen or suffixes.json_key == "caption")):
        found = _caption_of_json(_content(parts["json"]), suffixes.json_key)
        if not order or isinstance(found, str):
            return found
    return _content(parts[order[0]]) if order else None


def _content(part: Part) -> bytes | Problem:
    return part() if callable(part) else part


def _caption_of_json(data: bytes | Problem, key: str) -> str | Problem:
    if isinstance(data, Problem):
        return data
    try:
        values = json.loads(data)
    except UnicodeDecodeError:
        return Problem(Reason.CAPTION_NOT_UTF8, "in the JSON")
    except (ValueError, RecursionError) as error:
        return Problem(Reason.MISSING_CAPTION, f"the JSON is damaged: {error}"[:200])
    caption = values.get(key) if isinstance(values, dict) else None
    return caption if isinstance(caption, str) else Problem(Reason.MISSING_CAPTION, _no_caption(values, key))


def _no_caption(values: Any, key: str) -> str:
    if not isinstance(values, dict):
        return f"the JSON is a {type(values).__name__}, not an object"
    if key in values:
        return f"the JSON's '{key}' is {'null' if values[key] is None else f'a {type(values[key]).__name__}'}"
    return f"the JSON has no '{key}' but {', '.join(values)[:100] or 'nothing'}; set caption_column"
