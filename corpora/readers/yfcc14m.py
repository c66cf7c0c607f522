"""Reads YFCC14M as GroupViT and CoCu keep it: zips of images, and one TSV with the captions.

GroupViT's preparation (read in its `convert_dataset/`) downloads the photos of CLIP's
`yfcc100m_subset_data.tsv` into zips, one for each three hex digits that the photo's hash begins with, whose
members are `data/images/abc/def/abcdef....jpg`; beside them it writes `yfcc14m_dataset.tsv` with the columns
`file` (`abc/def/abcdef....jpg`) and `caption` (the description, URL escapes and tags removed).
That TSV is read as it is. A TSV with `photo_hash` (or `hash`) for `file`, and `title` and `description` for
`caption`, as one exports from YFCC100M's metadata, is read too; its caption is "title description".

A zip is a shard, and its members are the samples: rows of the TSV whose image is in no zip are no samples.
The TSV is read through once a zip, a few seconds for all 14.8 M rows, since its order is not the zips'.
"""

from __future__ import annotations

import posixpath
import zipfile
import zlib
from collections.abc import Iterator

from configs.schema import IngestConfig
from configs.text_files import BOM
from corpora.captions import Problem, unquote
from corpora.delimited import fit_fields, split_fields
from corpora.readers.csv_table import read_lines
from corpora.reasons import Reason
from corpora.samples import IMAGES, Sample, sample_name, too_big
from corpora.shards import Shard
from corpora.table_layout import TableLayout
from storage.addresses import resolve

__all__ = ["read_zip"]


def read_zip(shard: Shard, limits: IngestConfig) -> Iterator[Sample]:
    """The images of a zip, in the order of their bytes, each with its caption from the tables.

    Raises:
        zipfile.BadZipFile: the file is no zip.
    """
    filesystem, path = resolve(shard.address)
    with filesystem.open_input_file(path) as source, zipfile.ZipFile(source) as archive:  # type: ignore[call-overload]
        members = sorted(archive.infolist(), key=lambda info: info.header_offset)
        images = [info for info in members if _is_image(info)]
        captions = _captions({_stem(info.filename) for info in images}, shard)
        for info in images:
            stem = _stem(info.filename)
            yield _sample(archive, info, stem, captions.get(stem), limits)
        others = [info.filename for info in members if not info.is_dir() and not _is_image(info)]
        if others:
            more = ", ..." if len(others) > 5 else ""
            text = f"{len(others)} files: {', '.join(others[:5])}{more}"
            yield Sample("", problem=Problem(Reason.NO_SAMPLE, text))


def _is_image(info: zipfile.ZipInfo) -> bool:
    base = posixpath.basename(info.filename)
    return not base.startswith(".") and posixpath.splitext(base)[1][1:].lower() in IMAGES


def _stem(file: str) -> str:
    """The name without folders and the image's suffix, if it has one: names may hold dots."""
    base = posixpath.basename(file)
    stem, suffix = posixpath.splitext(base)
    return stem if suffix[1:].lower() in IMAGES else base


def _sample(
    archive: zipfile.ZipFile,
    info: zipfile.ZipInfo,
    stem: str,
    caption: str | Problem | None,
    limits: IngestConfig,
) -> Sample:
    name = sample_name(stem)
    image = _member(archive, info, limits)
    for part in (caption, image):
        if isinstance(part, Problem):
            return Sample(name, problem=part)
    return Sample(name, image, caption)  # type: ignore[arg-type]


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, limits: IngestConfig) -> bytes | Problem:
    if info.file_size > limits.max_image_bytes:
        return too_big(info.file_size)
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return Problem(Reason.UNREADABLE_IMAGE, f"in the zip: compression method {info.compress_type}")
    try:
        return archive.read(info)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        # A damaged or encrypted member.
        return Problem(Reason.UNREADABLE_IMAGE, f"in the zip: {error}"[:200])


def _captions(stems: set[str], shard: Shard) -> dict[str, str | Problem]:
    """Captions by the image's name without folders and suffix; the first row of an image counts."""
    found: dict[str, str | Problem] = {}
    for address, layout in shard.tables:
        for stem, line in _rows(address, layout):
            if stem in stems:
                found.setdefault(stem, _caption(line, layout))
    return found


def _rows(address: str, layout: TableLayout) -> Iterator[tuple[str, bytes]]:
    """(the image's stem, the line) of each row; only that far is a line looked into."""
    column, delimiter = layout.keys[0], layout.delimiter.encode()
    for position, line in read_lines(address, ending=layout.line_break):
        if line and not (position == 0 and layout.header):
            line = line if position else line.removeprefix(BOM)
            file = line.split(delimiter, column + 1)[column : column + 1]
            yield _stem(file[0].strip(b'"\r').decode("utf-8", "surrogateescape")) if file else "", line


def _caption(line: bytes, layout: TableLayout) -> str | Problem:
    try:
        text = line.decode("utf-8").rstrip("\r")
    except UnicodeDecodeError as error:
        return Problem(Reason.CAPTION_NOT_UTF8, f"byte {error.start} of the line")
    fields = split_fields(text, layout.delimiter)
    if fields is None:
        return Problem(Reason.MALFORMED_ROW, "a quote is open at the end of the line")
    fitted = fit_fields(fields, layout.width, max(layout.captions), layout.delimiter)
    if isinstance(fitted, Problem) or len(fitted) <= max(layout.captions):
        return Problem(Reason.MALFORMED_ROW, f"{len(fields)} fields of {layout.width}")
    return " ".join(unquote(fitted[column]).strip() for column in layout.captions).strip()
