"""Reads YFCC14M as GroupViT and CoCu keep it: zips of images, and one TSV with the captions.

GroupViT's preparation (read in its `convert_dataset/`) downloads the photos of CLIP's
`yfcc100m_subset_data.tsv` into zips, one for each three hex digits that the photo's hash begins with, whose
members are `data/images/abc/def/abcdef....jpg`; beside them it writes `yfcc14m_dataset.tsv` with the columns
`file` (`abc/def/abcdef....jpg`) and `caption` (the description, URL escapes and tags removed).
That TSV is read as it is. A TSV with `photo_hash` (or `hash`) for `file`, and `title` and `description` for
`caption`, as one exports from YFCC100M's metadata, is read too; its caption is "title description".

A zip is a shard, and its members are the samples: rows of the TSV whose image is in no zip are no samples.
How captions are found is in yfcc_captions.py.
"""

from __future__ import annotations

import posixpath
import zipfile
import zlib
from collections.abc import Iterator

from configs.schema import IngestConfig
from corpora.captions import Problem
from corpora.readers.yfcc_captions import captions_of
from corpora.reasons import Reason
from corpora.samples import IMAGES, Sample, file_stem, sample_name, too_big
from corpora.shards import Shard
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
        captions = captions_of({file_stem(info.filename) for info in images}, shard)
        for info in images:
            stem = file_stem(info.filename)
            yield _sample(archive, info, stem, captions.get(stem), limits)
        others = [info.filename for info in members if not info.is_dir() and not _is_image(info)]
        if others:
            more = ", ..." if len(others) > 5 else ""
            text = f"{len(others)} files: {', '.join(others[:5])}{more}"
            yield Sample("", problem=Problem(Reason.NO_SAMPLE, text))


def _is_image(info: zipfile.ZipInfo) -> bool:
    base = posixpath.basename(info.filename)
    return not base.startswith(".") and posixpath.splitext(base)[1][1:].lower() in IMAGES


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
