"""What two workspaces hold, row by row, and what is committed of a table that is being built."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from storage import tables


def table_rows(workspace: Path, table: str, columns: list[str] | None = None) -> pa.Table:
    """All rows of a complete table in its order."""
    manifest = tables.read_manifest(str(workspace), table)
    return pa.concat_tables(
        [pq.read_table(file, columns=columns, partitioning=None) for file in manifest.files]
    )


def assert_same_tables(one: Path, other: Path, names: Sequence[str]) -> None:
    """Row for row, value for value."""
    for name in names:
        left, right = table_rows(one, name), table_rows(other, name)
        assert left.schema.equals(right.schema), name
        assert left.num_rows == right.num_rows, f"{name}: {left.num_rows} and {right.num_rows} rows"
        assert left.equals(right), f"{name} differs"


def duplicates(rows: pa.Table) -> int:
    """Rows whose key was there before."""
    return rows.num_rows - len(set(rows.column("key").to_pylist()))


def progress_of(workspace: Path, table: str) -> dict:
    """The progress file of a table that is being built, or nothing."""
    for path in (workspace / table).glob("_progress-*.json"):
        with contextlib.suppress(OSError):
            return json.loads(path.read_text())  # half of one would be a fault: no error is hidden here
    return {"units": []}


def committed_units(workspace: Path, table: str) -> int:
    """Units in the progress file of a table that is being built."""
    return len(progress_of(workspace, table)["units"])


def stray_files(workspace: Path, table: str) -> list[Path]:
    """Files among a complete table's parts that its manifest does not name."""
    manifest = tables.read_manifest(str(workspace), table)
    named = {Path(file) for file in [*manifest.files, *manifest.reject_files]}
    found = (workspace / table / "_parts").rglob("*")
    return sorted(path for path in found if path.is_file() and path not in named)
