"""Part files: the Parquet files that a table's rows are in. What they mean is said by :mod:`storage.tables`."""

from __future__ import annotations

import contextlib
import posixpath
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from configs.errors import UserError
from storage.addresses import is_local, join, make_folder, resolve

__all__ = ["only", "part_path", "read_file", "read_schema", "rows_of_keys", "write_part"]

_ONLY = "#only="


def part_path(recipe: str, name: str, attempt: int | str) -> str:
    """Where a task attempt writes a part, relative to the table's folder.

    The part's name holds slashes (corpus, shard); the attempt makes the file of a repeated or
    speculative task, or of another run, another one.
    """
    corpus, _, rest = name.partition("/")
    return f"_parts/{recipe}/corpus={corpus}/{rest.replace('/', '--')}.{attempt}.parquet"


def write_part(
    folder: str,
    file: str,
    tables: pa.Table | Iterator[pa.Table],
    schema: pa.Schema,
    row_group_rows: int = 2500,
) -> int:
    """Write one part file; returns its rows.

    ``file`` is relative to ``folder`` and no other attempt's (:func:`part_path`). zstd, since JPEG bytes do not shrink and text does.
    """
    filesystem, path = resolve(join(folder, file))
    make_folder(filesystem, posixpath.dirname(path))
    rows = 0
    binary = [name for name in schema.names if name in ("image", "embedding")]
    dictionary = [name for name in schema.names if name in ("corpus", "reason", "stage")]
    try:
        with (
            filesystem.open_output_stream(path) as sink,
            pq.ParquetWriter(
                sink,
                schema,
                compression={name: "none" if name in binary else "zstd" for name in _leaf_paths(schema)},
                use_dictionary=dictionary,
                write_statistics=["key"] if "key" in schema.names else False,
            ) as writer,
        ):
            for table in [tables] if isinstance(tables, pa.Table) else tables:
                writer.write_table(table.cast(schema), row_group_size=row_group_rows)
                rows += table.num_rows
    except BaseException:
        # Never created, or the disk that failed us fails again: the first error is the one to tell.
        with contextlib.suppress(OSError):
            filesystem.delete_file(path)
        raise
    return rows


def read_schema(address: str) -> pa.Schema:
    """The columns of one Parquet file, which a selection does not change."""
    filesystem, path = resolve(address.partition(_ONLY)[0])
    with filesystem.open_input_file(path) as source:
        return pq.read_schema(source)


def _leaf_paths(schema: pa.Schema) -> list[str]:
    """Column paths as Parquet names them (a list's values are a path below it)."""
    paths = []
    for entry in schema:
        nested = pa.types.is_list(entry.type) or pa.types.is_fixed_size_list(entry.type)
        paths.append(f"{entry.name}.list.element" if nested else entry.name)
    return paths


def only(file: str, keys: str) -> str:
    """The name of a part file of which only the rows are read whose keys are in another file, at the address ``keys``."""
    return f"{file}{_ONLY}{keys}"


def read_file(address: str, columns: list[str] | None = None) -> pa.Table:
    """One Parquet file, or one clear error that names it; of the rows that :func:`only` leaves."""
    address, narrowed, keys = address.partition(_ONLY)
    if narrowed:
        rows = read_file(address, None if columns is None else list(dict.fromkeys([*columns, "key"])))
        wanted = pc.is_in(
            rows.column("key"), value_set=read_file(keys, ["key"]).column("key").combine_chunks()
        )
        rows = rows.filter(wanted)
        return rows if columns is None else rows.select(columns)
    filesystem, path = resolve(address)
    try:
        with filesystem.open_input_file(path) as source:
            # From a store, all that is wanted in a few large requests instead of one a column of a row group.
            file = pq.ParquetFile(source, pre_buffer=not is_local(filesystem))
            return file.read(columns=columns, use_threads=False)
    except FileNotFoundError:
        raise UserError(
            f"{address}: the manifest names this file and it is gone; run the job of its table with verify=true"
        ) from None
    except pa.ArrowInvalid as error:
        raise UserError(
            f"{address}: not a whole Parquet file ({error}); run the job of its table with verify=true"
        ) from None


def rows_of_keys(rows: pa.Table, keys: pa.ChunkedArray) -> pa.Table:
    """The rows of a part that have these keys, in the keys' order; a stage's rejects are in the parts before it alone."""
    if rows.column("key").equals(keys):
        return rows
    return rows.take(pc.index_in(keys, value_set=rows.column("key").combine_chunks()))
