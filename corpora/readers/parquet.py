"""Reads img2dataset's parquet output: image bytes beside the metadata, a row group at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from configs.schema import CorpusConfig, IngestConfig
from corpora.captions import Problem
from corpora.inline_images import inline_image
from corpora.reasons import Reason
from corpora.samples import IMAGES, Sample, as_text, sample_name, too_big
from corpora.shards import Shard
from storage.addresses import is_readable, resolve

__all__ = ["read_parquet"]

_ROWS_A_BATCH = 64
_FURTHER = "further:"  # before the names of columns that go along
_BUFFER = 4 << 20  # bytes of a column read at a time
# What img2dataset says of a download that failed.
_FAILURE_COLUMNS = ("status", "error_message")


def read_parquet(shard: Shard, limits: IngestConfig) -> Iterator[Sample]:
    """One sample a row, named by column `key` if there is one, else by the row's number.

    The image is bytes, a struct with the field `bytes` (Hugging Face data sets), or a text that is the image
    (base64, a `data:` URL). The rows of a row
    group that cannot be decoded are rejected one by one, so that none is lost from the count.
    """
    filesystem, path = resolve(shard.address)
    with filesystem.open_input_file(path) as source:
        # Else a row group's columns are held whole; pyarrow 14 buffers nothing ahead, newer ones do unless told.
        file = pq.ParquetFile(source, buffer_size=_BUFFER, pre_buffer=False)
        columns = _columns(file.schema_arrow, shard.options)
        if isinstance(columns, Problem):
            yield Sample("", problem=columns)
            return
        further = {name: name for name in limits.columns if file.schema_arrow.names.count(name) == 1}
        columns |= {f"{_FURTHER}{name}": name for name in further}
        first = 0
        for group in range(file.num_row_groups):
            yield from _row_group(file, shard.address, group, first, columns, limits)
            first += file.metadata.row_group(group).num_rows


def _columns(schema: pa.Schema, options: CorpusConfig) -> dict[str, str] | Problem:
    """Column by meaning. A column of bytes goes before one of another type, unless the corpus names its column."""
    names = schema.names
    named = options.image_column != CorpusConfig().image_column
    images = [name for name in dict.fromkeys((options.image_column, *IMAGES)) if name in names]
    image = next(
        (name for name in images if named or _holds_bytes(schema, name)), images[0] if images else None
    )
    if image is None or options.caption_column not in names:
        text = (
            f"needs an image column ('{options.image_column}', jpg, png or webp) and '{options.caption_column}', "
            f"has {', '.join(names)[:200]}; set image_column and caption_column"
        )
        return Problem(Reason.UNREADABLE_SHARD, text)
    others = {name: name for name in ("key", *_FAILURE_COLUMNS) if names.count(name) == 1}
    for name in (image, options.caption_column):
        if names.count(name) > 1:
            text = f"has {names.count(name)} columns called '{name}'; rename, or set image_column and caption_column"
            return Problem(Reason.UNREADABLE_SHARD, text)
    return {**others, "image": image, "caption": options.caption_column}


def _holds_bytes(schema: pa.Schema, name: str) -> bool:
    kind = schema.types[schema.names.index(name)]
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0
    return str(kind) in ("binary", "large_binary", "binary_view")


def _row_group(
    file: pq.ParquetFile, address: str, group: int, first: int, columns: dict[str, str], limits: IngestConfig
) -> Iterator[Sample]:
    rows = file.metadata.row_group(group).num_rows
    done = 0
    try:
        wanted = list(dict.fromkeys(columns.values()))
        for batch in file.iter_batches(_ROWS_A_BATCH, row_groups=[group], columns=wanted, use_threads=False):
            for number in range(batch.num_rows):
                done += 1
                row = {meaning: batch.column(name)[number] for meaning, name in columns.items()}
                yield _sample(row, first + done - 1, limits)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
        if isinstance(error, OSError) and not is_readable(address):
            raise  # the store failed, not the data
        problem = Problem(Reason.UNREADABLE_SHARD, f"row group {group}: {' '.join(str(error).split())}"[:300])
        for number in range(first + done, first + rows):
            yield Sample(f"{number:09d}", problem=problem)


def _sample(row: dict[str, pa.Scalar], number: int, limits: IngestConfig) -> Sample:
    key = row["key"].as_py() if "key" in row else None
    name = sample_name(str(key)) if key not in (None, "") else f"{number:09d}"
    image, caption = _image(row["image"], limits), row["caption"].as_py()
    if isinstance(image, Problem):
        return Sample(name, problem=image)
    if image is not None and len(image) > limits.max_image_bytes:
        return Sample(name, problem=too_big(len(image)))
    if image is None:
        return Sample(name, problem=Problem(Reason.MISSING_IMAGE, _no_image(row)[:200]))
    if caption is not None and not isinstance(caption, (str, bytes)):
        return Sample(name, problem=Problem(Reason.MISSING_CAPTION, f"a value of type {row['caption'].type}"))
    further = {
        meaning.removeprefix(_FURTHER): as_text(value.as_py())
        for meaning, value in row.items()
        if meaning.startswith(_FURTHER)
    }
    return Sample(name, image, caption, columns=further)


def _no_image(row: dict[str, pa.Scalar]) -> str:
    """What img2dataset said of the download, or what there is where bytes should be."""
    told = [str(row[column].as_py()) for column in _FAILURE_COLUMNS if column in row]
    value = row["image"].as_py()
    if told or value is None:
        return ", ".join(told) or "the image is null"
    if isinstance(value, dict):
        return (
            f"no bytes, only {', '.join(f'{name} {text}' for name, text in value.items() if text) or 'nulls'}"
        )
    return f"not the image's bytes but a {row['image'].type}: {value!s:.60} (paths: format table)"


def _image(value: pa.Scalar, limits: IngestConfig) -> bytes | Problem | None:
    found: Any = value.as_py()
    if isinstance(found, dict):
        found = found.get("bytes")
    if isinstance(found, str):
        return inline_image(found, limits)
    return found if isinstance(found, bytes) else None
