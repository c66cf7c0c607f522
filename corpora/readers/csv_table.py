"""Reads CSV/TSV tables of (image path, caption) beside a folder of images, or with the images in base64."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import pyarrow as pa

from configs.schema import IngestConfig
from corpora.captions import Problem
from corpora.delimited import fit_fields, split_fields
from corpora.inline_images import inline_image
from corpora.readers.image_folder import image_below
from corpora.reasons import Reason
from corpora.samples import Sample, as_text
from corpora.shards import Shard
from corpora.table_layout import TableLayout
from storage.addresses import resolve

__all__ = ["read_lines", "read_table"]

_BLOCK = 1 << 20
_LONGEST_LINE = 8 << 20


def read_table(shard: Shard, limits: IngestConfig) -> Iterator[Sample]:
    """One sample a line (a quoted field may not hold a line break), named by the line's position in bytes.

    Names are positions since images may occur in several rows, one a caption, and since a byte range
    knows no row numbers. Empty lines are no samples.
    """
    layout = shard.layout
    assert layout is not None
    further = _places(shard.address, layout, limits.columns)
    for position, line in read_lines(shard.address, shard.start, shard.end, layout.line_break):
        if (position == 0 and layout.header) or (line is not None and not line.strip()):
            continue
        yield _row(f"{position:012d}", line, layout, shard.options.image_root, limits, further)


def _places(address: str, layout: TableLayout, columns: Sequence[str]) -> dict[str, int]:
    """Numbers of the columns that go along, where the header has them once."""
    if not columns or not layout.header:
        return {}
    _, line = next(read_lines(address, ending=layout.line_break), (0, None))
    header = (line or b"").decode("utf-8-sig", "replace").rstrip("\r")
    fields = split_fields(header, layout.delimiter) or []
    return {name: fields.index(name) for name in columns if fields.count(name) == 1}


def _row(
    name: str,
    line: bytes | None,
    layout: TableLayout,
    root: str,
    limits: IngestConfig,
    further: Mapping[str, int],
) -> Sample:
    if line is None:
        return Sample(
            name, problem=Problem(Reason.MALFORMED_ROW, f"a line of more than {_LONGEST_LINE} bytes")
        )
    try:
        fields = split_fields(line.decode("utf-8").rstrip("\r"), layout.delimiter)
    except UnicodeDecodeError as error:
        return Sample(name, problem=Problem(Reason.CAPTION_NOT_UTF8, f"byte {error.start} of the line"))
    (path_column,), (caption_column,) = layout.keys, layout.captions
    if fields is None:
        return Sample(name, problem=Problem(Reason.MALFORMED_ROW, "a quote is open at the end of the line"))
    fitted = fit_fields(fields, layout.width, caption_column, layout.delimiter)
    if isinstance(fitted, Problem) or len(fitted) <= max(path_column, caption_column):
        text = f"{len(fields)} fields of {layout.width}"
        return Sample(name, problem=Problem(Reason.MALFORMED_ROW, text))
    fields = fitted
    path = fields[path_column].lstrip("\ufeff").strip()
    if not path:
        return Sample(name, problem=Problem(Reason.MALFORMED_ROW, "no image path"))
    image = inline_image(path, limits)
    if image is None:
        image = image_below(root, path, limits)
    if isinstance(image, Problem):
        return Sample(name, problem=image)
    columns = {
        column: as_text(fields[number]) if number < len(fields) else None
        for column, number in further.items()
    }
    return Sample(name, image, fields[caption_column], columns=columns)


def read_lines(
    address: str, start: int = 0, end: int = 0, ending: bytes = b"\n"
) -> Iterator[tuple[int, bytes | None]]:
    """(byte position, line) of the lines that begin in a range of bytes; ``end`` 0 is the end of the file.

    A line of more than 8 MiB is None, its content skipped. Compressed files are read as a whole.
    """
    filesystem, path = resolve(address)
    if not start:
        with filesystem.open_input_stream(path, buffer_size=_BLOCK) as stream:
            yield from _until(end, _split_lines(stream, 0, ending))
        return
    with filesystem.open_input_file(path) as source:
        # From the byte before: if a line begins at `start`, what is skipped is just a line break.
        source.seek(start - 1)
        lines = _split_lines(source, start - 1, ending)
        next(lines, None)
        yield from _until(end, lines)


def _until(end: int, lines: Iterator[tuple[int, bytes | None]]) -> Iterator[tuple[int, bytes | None]]:
    for position, line in lines:
        if end and position >= end:
            return
        yield position, line


def _split_lines(stream: pa.NativeFile, position: int, ending: bytes) -> Iterator[tuple[int, bytes | None]]:
    rest, skipped = b"", 0  # the line at hand: its bytes so far, or how many were thrown away
    while block := stream.read(_BLOCK):
        lines = (rest + block).split(ending)
        rest = lines.pop()
        for line in lines:
            yield position, None if skipped else line
            position += skipped + len(line) + 1
            skipped = 0
        if len(rest) > _LONGEST_LINE or skipped:
            skipped += len(rest)
            rest = b""
    if rest or skipped:
        yield position, None if skipped else rest
