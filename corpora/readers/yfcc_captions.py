"""The captions of YFCC14M's photos: found in the TSV, or in buckets that it was sorted into once.

A TSV of 3 GB is in another order than the 4,096 zips. Read through once a zip it were read 12 TB; so it is read
once and its lines are put into files by how the photo's name begins. A zip whose names begin alike then reads
one of them.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import urllib.parse
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from configs.text_files import BOM
from corpora.captions import Problem, unquote
from corpora.delimited import fit_fields, split_fields
from corpora.readers.csv_table import read_lines
from corpora.reasons import Reason
from corpora.samples import file_stem
from corpora.shards import Shard
from corpora.table_layout import TableLayout
from storage.addresses import join, make_folder, resolve
from storage.listing import look_up, stamp_of
from storage.tables import write_atomically

__all__ = ["captions_of", "sort_into_buckets"]

_PREFIX = 3  # characters of a photo's name: GroupViT's zips are one for each
_HELD_BYTES = 64 << 20
_COPY_BYTES = 8 << 20
_INDEX = "index.json"


def captions_of(stems: set[str], shard: Shard) -> dict[str, str | Problem]:
    """Captions by the image's name without folders and suffix; the first row of an image counts.

    Raises:
        RuntimeError: the buckets are not whole.
    """
    found: dict[str, str | Problem] = {}
    for address, layout in _tables(stems, shard):
        for stem, line in _rows(address, layout):
            if stem in stems:
                found.setdefault(stem, _caption(line, layout))
    return found


def _tables(stems: set[str], shard: Shard) -> list[tuple[str, TableLayout]]:
    """The tables themselves, or those of their buckets that may hold one of the names."""
    if not shard.buckets:
        return list(shard.tables)
    (index,) = look_up([join(shard.buckets, _INDEX)])
    if index is None:
        raise RuntimeError(f"{shard.buckets}: the sorted captions are gone; run the job again")
    filesystem, path = resolve(index.address)
    with filesystem.open_input_stream(path) as stream:
        there = set(json.loads(stream.read()))
    names = sorted({_bucket(stem) for stem in stems})
    return [
        (join(shard.buckets, f"{number}-{name}"), _layout_of_bucket(layout))
        for number, (_, layout) in enumerate(shard.tables)
        for name in names
        if f"{number}-{name}" in there
    ]


def _layout_of_bucket(layout: TableLayout) -> TableLayout:
    return replace(layout, header=False, line_break=b"\n")


def _bucket(stem: str) -> str:
    return urllib.parse.quote(stem[:_PREFIX].lower(), safe="", errors="surrogateescape") or "_"


def _rows(address: str, layout: TableLayout) -> Iterator[tuple[str, bytes]]:
    """(the image's stem, the line) of each row; only that far is a line looked into."""
    column, delimiter = layout.keys[0], layout.delimiter.encode()
    for position, line in read_lines(address, ending=layout.line_break):
        if line and not (position == 0 and layout.header):
            line = line if position else line.removeprefix(BOM)
            file = line.split(delimiter, column + 1)[column : column + 1]
            yield file_stem(file[0].strip(b'"\r').decode("utf-8", "surrogateescape")) if file else "", line


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


def sort_into_buckets(tables: Sequence[tuple[str, TableLayout]], folder: str) -> str:
    """Sort the lines of tables into files below ``folder``; the address of these, for :attr:`Shard.buckets`.

    Reads each table once and holds 64 MB; the local disk for temporary files needs as much room as the tables.
    Buckets that are there already, of the same files, are left as they are.
    """
    stamp = stamp_of(entry for entry in look_up([address for address, _ in tables]) if entry is not None)
    target = join(folder, stamp)
    if look_up([join(target, _INDEX)]) != [None]:
        return target
    with tempfile.TemporaryDirectory(prefix="cocu-captions-") as temporary:
        for number, (address, layout) in enumerate(tables):
            _fill(Path(temporary), number, _rows(address, layout))
        names = sorted(file.name for file in Path(temporary).iterdir())
        filesystem, path = resolve(target)
        make_folder(filesystem, path)
        for name in names:
            with (
                open(Path(temporary) / name, "rb") as source,
                filesystem.open_output_stream(f"{path}/{name}") as sink,
            ):
                shutil.copyfileobj(source, sink, _COPY_BYTES)
    write_atomically(join(target, _INDEX), json.dumps(names).encode())
    return target


def _fill(folder: Path, number: int, rows: Iterator[tuple[str, bytes]]) -> None:
    """Append each line to its bucket's file, in the order of the table."""
    held: defaultdict[str, list[bytes]] = defaultdict(list)
    size = 0
    for stem, line in rows:
        held[_bucket(stem)].append(line.replace(b"\n", b" "))
        size += len(line) + 1
        if size > _HELD_BYTES:
            _append(folder, number, held)
            size = 0
    _append(folder, number, held)


def _append(folder: Path, number: int, held: defaultdict[str, list[bytes]]) -> None:
    for name, lines in held.items():
        with open(folder / f"{number}-{name}", "ab") as stream:
            stream.write(b"\n".join(lines) + b"\n")
    held.clear()
