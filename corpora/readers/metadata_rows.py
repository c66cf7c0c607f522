"""Reads the metadata of ready vectors: Parquet, JSON lines, CSV or TSV with a row for each vector."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from configs.errors import UserError
from configs.schema import CorpusConfig
from configs.text_files import decode_text, split_lines
from corpora.captions import Problem
from corpora.delimited import fit_fields, parse_rows, split_fields
from corpora.reasons import Reason
from storage.addresses import resolve

__all__ = ["MetadataRows", "check_metadata", "read_metadata"]

_HEAD_BYTES = 1 << 20


@dataclass(frozen=True)
class MetadataRows:
    """Key (None: no name) and caption (None: none) of each row, in the order of the file."""

    keys: list[str | None]
    captions: list[str | Problem | None]


def check_metadata(corpus: CorpusConfig, address: str) -> None:
    """Whether a file is of a kind that can be read and has the columns.

    Raises:
        UserError: it is not, or it has not; or two columns have the name that is asked for.
    """
    kind = _kind(address)
    try:
        _check_columns(corpus, address, _COLUMNS[kind](address))
    except (pa.ArrowInvalid, FileNotFoundError) as error:
        raise _unreadable(corpus, address, error) from None


def read_metadata(corpus: CorpusConfig, address: str) -> MetadataRows:
    """The rows of one metadata file.

    A row that is not as wide as the header is one whose caption is a problem.

    Raises:
        UserError: the file is damaged, of another kind or encoding, or lacks the columns.
    """
    kind = _kind(address)
    try:
        _check_columns(corpus, address, _COLUMNS[kind](address))
        return _READERS[kind](corpus, address)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, FileNotFoundError) as error:
        raise _unreadable(corpus, address, error) from None


def _unreadable(corpus: CorpusConfig, address: str, error: Exception) -> UserError:
    text = " ".join(str(error).split())[:200]
    return UserError(f"corpus '{corpus.name}': {address}: cannot be read: {text}")


def _kind(address: str) -> str:
    suffix = posixpath.splitext(address)[1].lower()
    if suffix not in _READERS:
        raise UserError(f"{address}: metadata must be .parquet, .jsonl, .csv or .tsv")
    return suffix


def _check_columns(corpus: CorpusConfig, address: str, columns: Sequence[str]) -> None:
    for option in ("caption_column", "key_column"):
        name = getattr(corpus, option)
        if name and columns.count(name) != 1:
            what = "is not in" if name not in columns else "is the name of two columns in"
            raise UserError(
                f"corpus '{corpus.name}': {option}={name} {what} {address}; columns: {', '.join(columns)[:300]}"
            )


def _text(address: str, most: int = 0) -> str:
    """The file (or its beginning, up to a line's end) as text."""
    filesystem, path = resolve(address)
    with filesystem.open_input_stream(path, compression=None) as stream:
        data = stream.read(most) if most else stream.read()
    if len(data) == most:
        data = data[: max(data.rfind(b"\n"), data.rfind(b"\r")) + 1]
    return decode_text(data, address)


def _parquet_columns(address: str) -> list[str]:
    filesystem, path = resolve(address)
    with filesystem.open_input_file(path) as source:
        return pq.ParquetFile(source).schema_arrow.names


def _delimiter(address: str) -> str:
    return "\t" if address.lower().endswith(".tsv") else ","


def _table_columns(address: str) -> list[str]:
    return split_fields(_text(address, _HEAD_BYTES).partition("\n")[0], _delimiter(address)) or []


def _json_columns(address: str) -> list[str]:
    line = _text(address, _HEAD_BYTES).partition("\n")[0]
    return list(_json_object(line, address, 1))


def _json_object(line: str, address: str, number: int) -> dict[str, Any]:
    try:
        values = json.loads(line)
    except ValueError as error:
        raise UserError(f"{address}, line {number}: is not JSON: {error}") from None
    if not isinstance(values, dict):
        raise UserError(f"{address}, line {number}: is no JSON object; write one a line")
    return values


def _read_parquet(corpus: CorpusConfig, address: str) -> MetadataRows:
    filesystem, path = resolve(address)
    wanted = [name for name in (corpus.caption_column, corpus.key_column) if name]
    with filesystem.open_input_file(path) as source:
        rows = pq.ParquetFile(source).read(columns=list(dict.fromkeys(wanted)))
    captions = rows.column(corpus.caption_column).cast(pa.string()).to_pylist()
    keys = rows.column(corpus.key_column).cast(pa.string()).to_pylist() if corpus.key_column else None
    return MetadataRows(keys or [None] * len(captions), captions)


def _read_json(corpus: CorpusConfig, address: str) -> MetadataRows:
    rows = [
        _json_object(line, address, number)
        for number, line in enumerate(split_lines(_text(address)), 1)
        if line.strip()
    ]
    keys = [_json_key(row.get(corpus.key_column)) for row in rows]
    return MetadataRows(keys, [_json_caption(row.get(corpus.caption_column)) for row in rows])


def _json_key(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value)


def _json_caption(value: Any) -> str | Problem | None:
    if value is None or isinstance(value, str):
        return value
    return Problem(Reason.MISSING_CAPTION, f"a JSON value of type {type(value).__name__}")


def _read_table(corpus: CorpusConfig, address: str) -> MetadataRows:
    delimiter = _delimiter(address)
    header, *rows = parse_rows(_text(address), delimiter)
    caption = header.index(corpus.caption_column)
    key = header.index(corpus.key_column) if corpus.key_column else None
    keys: list[str | None] = []
    captions: list[str | Problem | None] = []
    for row in rows:
        fields = fit_fields(row, len(header), caption, delimiter)
        short = isinstance(fields, list) and len(fields) <= max(caption, key or 0)
        if short:
            fields = Problem(Reason.MALFORMED_ROW, f"{len(row)} fields of {len(header)}")
        keys.append(None if key is None or isinstance(fields, Problem) else fields[key] or None)
        captions.append(fields if isinstance(fields, Problem) else fields[caption])
    return MetadataRows(keys, captions)


_READERS: dict[str, Callable[[CorpusConfig, str], MetadataRows]] = {
    ".parquet": _read_parquet,
    ".jsonl": _read_json,
    ".json": _read_json,
    ".ndjson": _read_json,
    ".csv": _read_table,
    ".tsv": _read_table,
}
_COLUMNS: dict[str, Callable[[str], list[str]]] = {
    **dict.fromkeys((".jsonl", ".json", ".ndjson"), _json_columns),
    **dict.fromkeys((".csv", ".tsv"), _table_columns),
    ".parquet": _parquet_columns,
}
